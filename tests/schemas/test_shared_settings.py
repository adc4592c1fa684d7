"""Settings of several roles: the form of addresses and URLs, and errors without passwords."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from schemas.errors import ConfigError
from schemas.settings import HostPort, HttpUrl, SettingsTable, address


class Table(SettingsTable):
    http: HostPort = ("localhost", 80)
    prometheus: HttpUrl = ""
    room_bytes: int = 0
    wait_s: float = 0
    rate_bytes_per_s: float = 0


@pytest.mark.parametrize(
    ("text", "found"),
    [("broker:1", ("broker", 1)), ("10.0.0.9:65535", ("10.0.0.9", 65535)), ("[::1]:1883", ("::1", 1883))],
)
def test_an_address_is_a_host_and_a_port(text: str, found: tuple[str, int]) -> None:
    assert address(text) == found
    table = Table.model_validate({"http": text})
    assert table.http == found
    assert table.model_dump()["http"] == text
    assert Table(http=found).http == found


@pytest.mark.parametrize(
    "text", ["", "broker", ":1883", "broker:", "broker:mqtt", "broker:65536", "broker:-1", "broker:²", "a..b:1883"]
)
def test_an_invalid_address_is_rejected_with_the_expected_form(text: str) -> None:
    with pytest.raises(ConfigError, match="address: expected host:port with a port from 1 to 65535"):
        address(text)
    with pytest.raises(ValidationError, match="expected host:port, got"):
        Table.model_validate({"http": text})


def test_port_0_is_accepted_only_for_listening() -> None:
    assert Table.model_validate({"http": "localhost:0"}).http == ("localhost", 0)
    with pytest.raises(ConfigError, match="a port from 1 to 65535"):
        address("localhost:0")


def test_errors_show_no_password() -> None:
    with pytest.raises(ConfigError, match="without a user and a password") as refused:
        address("ada:secret@broker:1883")
    assert "secret" not in str(refused.value)
    for name, text in (("http", "ada:secret@broker"), ("prometheus", "http://ada:secret@host:9090")):
        with pytest.raises(ValidationError) as wrong:
            Table.model_validate({name: text})
        assert "secret" not in wrong.value.errors()[0]["msg"]


@pytest.mark.parametrize("text", ["http://host", "https://host:9090", "http://host:9090/a/path"])
def test_a_url_of_a_web_server_is_accepted(text: str) -> None:
    assert Table.model_validate({"prometheus": text}).prometheus == text


@pytest.mark.parametrize("text", ["host:9090", "ftp://host", "http://", "http://a host", "http://host/a path"])
def test_another_url_is_rejected_with_the_expected_form(text: str) -> None:
    with pytest.raises(ValidationError, match="expected http://host:port or https://host:port, got"):
        Table.model_validate({"prometheus": text})


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("room_bytes", "64MiB", 64 * 2**20),
        ("room_bytes", "1.5 KiB", 1536),
        ("room_bytes", "2048", 2048),
        ("wait_s", "7d", 7 * 86_400),
        ("wait_s", "1.5min", 90),
        ("rate_bytes_per_s", "2 KiB", 2048),
    ],
)
def test_a_quantity_may_have_a_unit_of_its_kind(name: str, text: str, found: float) -> None:
    assert getattr(Table.model_validate({name: text}), name) == found


@pytest.mark.parametrize(("name", "text"), [("room_bytes", "7d"), ("wait_s", "1MiB"), ("wait_s", "1 min more")])
def test_a_unit_of_another_kind_is_rejected(name: str, text: str) -> None:
    with pytest.raises(ValidationError, match=name):
        Table.model_validate({name: text})
