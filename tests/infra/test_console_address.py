"""The address of `up`'s console: its certificate, its users, and the URL that is printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from consumers.console.access.rights import Right
from consumers.console.access.users import write_user
from infra.local.ports import Ports
from infra.local.process import COMMAND
from infra.pki.authority import Authority, good_for
from infra.pki.roles import role_folder
from infra.state_folder import Layout
from infra.up import console_address
from infra.up.console_address import (
    CERTIFICATE,
    advice,
    certificate_hosts,
    check_console,
    console_url,
    is_by_https,
    own_addresses,
)
from infra.up.identities import prepare_identities
from infra.up.processes import LocalRoles, Role, RoleProcess
from infra.up.settings import UpSettings
from schemas.errors import ConfigError
from tests.infra.command_line import parse_arguments


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    write_user(tmp_path / "users", "anna", Right.ADMIN, "a long password")
    return Layout(tmp_path)


def console_options(layout: Layout, settings: UpSettings) -> dict[str, object]:
    """Return the options of `up`'s console, as its command parses them."""
    return options_of(LocalRoles(settings, layout, Ports(layout.folder), "127.0.0.1:1", "127.0.0.1:2").console())


def options_of(role: Role) -> dict[str, object]:
    assert isinstance(role.process, RoleProcess)
    return parse_arguments(role.process.command[len(COMMAND) :])


def test_a_console_open_to_other_machines_has_a_certificate_for_all_its_names(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_address, "own_names", lambda: ("door-server",))
    monkeypatch.setattr(console_address, "own_addresses", lambda: ("192.0.2.7", "2001:db8::7"))
    settings = UpSettings(http="0.0.0.0:8443", allowed_host=("cameras.example",), state=layout.folder)
    check_console(settings, layout)
    prepare_identities(layout, [], settings)
    folder = role_folder(layout.pki, CERTIFICATE)
    issued = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
    names = ["localhost", "127.0.0.1", "door-server", "192.0.2.7", "2001:db8::7", "cameras.example"]
    assert good_for(issued, names, 300)
    assert Authority(layout.pki).issued(issued)
    options = console_options(layout, settings)
    assert options["http_tls"] == folder.resolve()
    assert options["allowed_host"] == ("cameras.example", "door-server")
    prepare_identities(layout, [], settings)
    assert x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes()) == issued
    note = advice(settings, layout)
    assert note is not None
    assert str(layout.pki / "ca.crt") in note


@pytest.mark.parametrize(
    ("options_of_up", "https"),
    [
        ({}, False),
        ({"http": "127.0.0.1:8080"}, False),
        ({"http": "192.0.2.7:8080"}, True),
        ({"http": "door.example:8080"}, True),
        ({"http": "0.0.0.0:8080", "behind_proxy": "192.0.2.1"}, False),
        ({"http": "0.0.0.0:8080", "http_plain": True}, False),
        ({"http": "127.0.0.1:8080", "http_tls": Path("tls")}, True),
        ({"http": "0.0.0.0:8080", "http_tls": Path("tls"), "behind_proxy": "192.0.2.1"}, True),
    ],
)
def test_a_console_open_to_other_machines_uses_tls_unless_behind_a_proxy_or_in_plain_http(
    layout: Layout, options_of_up: dict[str, object], https: bool
) -> None:
    settings = UpSettings.model_validate({"state": layout.folder, **options_of_up})
    assert is_by_https(settings) == https
    options = console_options(layout, settings)
    assert (options["http_tls"] is not None) == https
    assert options["behind_proxy"] == options_of_up.get("behind_proxy")
    assert console_url(settings, "192.0.2.7:1").startswith("https://" if https else "http://")


def test_an_open_console_without_tls_is_one_error_line(layout: Layout) -> None:
    settings = UpSettings(http="0.0.0.0:8080", plain=True, state=layout.folder)
    with pytest.raises(ConfigError, match=r"--http-tls, --behind-proxy or --http-plain for 0\.0\.0\.0:8080"):
        check_console(settings, layout)
    check_console(settings.model_copy(update={"http_plain": True}), layout)
    check_console(settings.model_copy(update={"behind_proxy": "192.0.2.1"}), layout)
    note = advice(settings.model_copy(update={"http_plain": True}), layout)
    assert note is not None
    assert "plain HTTP" in note


def test_invalid_settings_of_the_console_are_rejected_before_anything_runs(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tls\.crt and .*: expected a certificate and its private key"):
        check_console(UpSettings(http_tls=tmp_path / "nowhere", state=layout.folder), layout)
    layout.users.unlink()
    for options_of_up in (
        {"http": "0.0.0.0:8080"},
        {"behind_proxy": "127.0.0.1"},
        {"http": "192.0.2.7:1", "http_plain": True},
    ):
        with pytest.raises(ConfigError, match=r"users.* is missing"):
            check_console(UpSettings.model_validate({"state": layout.folder, **options_of_up}), layout)


def test_the_console_s_own_file_of_users_replaces_that_of_the_state_folder(layout: Layout, tmp_path: Path) -> None:
    own = layout.users.rename(tmp_path / "own-users")
    shared = {"http": "0.0.0.0:8443", "state": layout.folder, "console": {"users": own}}
    settings = UpSettings.model_validate(shared)
    check_console(settings, layout)
    assert console_options(layout, settings)["users"] == own
    own.unlink()
    with pytest.raises(ConfigError, match=r"own-users: expected a file of users, got No such file"):
        check_console(settings, layout)


@pytest.mark.parametrize("proxy", ["0.0.0.0/0", "::/0", "proxy.example", "*", "192.0.2.1/24"])
def test_a_proxy_is_an_address_or_a_network_and_never_every_host(proxy: str) -> None:
    with pytest.raises(ValueError, match="behind_proxy"):
        UpSettings(behind_proxy=proxy)


def test_the_printed_url_can_be_opened_from_a_browser() -> None:
    anywhere = UpSettings(http="0.0.0.0:8443")
    host = console_url(anywhere, "0.0.0.0:8443").removeprefix("https://").rpartition(":")[0]
    assert host in (*own_addresses(), "localhost")
    assert host == "localhost" or host in certificate_hosts(anywhere)
    assert console_url(UpSettings(http="[::1]:80"), "[::1]:80") == "http://[::1]:80"
    assert console_url(UpSettings(), "127.0.0.1:5") == "http://127.0.0.1:5"
    named = UpSettings(http="0.0.0.0:8443", allowed_host=("cameras.example",))
    assert console_url(named, "0.0.0.0:8443") == "https://cameras.example:8443"
    bracketed = UpSettings(http="[::]:8443", allowed_host=("[2001:db8::7]:8443",))
    assert console_url(bracketed, "[::]:8443") == "https://[2001:db8::7]:8443"
    assert "2001:db8::7" in certificate_hosts(bracketed)


def test_a_login_by_provider_or_proxy_replaces_users(layout: Layout) -> None:
    layout.users.unlink()
    state = {"state": layout.folder}
    openid = {"issuer": "https://login.example", "client_id": "a", "url": "https://console.example", "viewer": ["*"]}
    shared = {"http": "0.0.0.0:8443", "console": {"openid": openid}}
    check_console(UpSettings.model_validate(state | shared), layout)
    assert "console.example" in certificate_hosts(UpSettings.model_validate(state | shared))
    layout.users.write_text("")
    layout.users.chmod(0o600)
    check_console(UpSettings.model_validate(state | shared), layout)
    with pytest.raises(ConfigError, match="expected at least one user"):
        check_console(UpSettings.model_validate(state), layout)
    layout.users.write_text("anna\n")
    with pytest.raises(ConfigError, match="users, line 1"):
        check_console(UpSettings.model_validate(state | shared), layout)
    layout.users.unlink()
    proxied = {"behind_proxy": "192.0.2.1", "console": {"proxy_login": {"viewer": ["*"]}}}
    check_console(UpSettings.model_validate(state | proxied), layout)
    with pytest.raises(ConfigError, match=r"proxy_login\.secret_file is missing"):
        check_console(UpSettings.model_validate(state | proxied | {"behind_proxy": "127.0.0.1"}), layout)
    with pytest.raises(ConfigError, match="--behind-proxy is missing"):
        check_console(UpSettings.model_validate(state | {"console": proxied["console"]}), layout)
