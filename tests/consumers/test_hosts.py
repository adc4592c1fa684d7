from __future__ import annotations

import pytest

from consumers.console.access.hosts import Hosts
from consumers.console.settings import ConsoleSettings

MORE = [
    "localhost:1/static/?", "127.0.0.1:18400@evil", "127.0.0.1:", "127.0.0.1:http", "localhost:123456",
    "user@127.0.0.1", "127.0.0.1/", "[::1", "[::1]evil", "[::1]:1/", "::1", "127.0.0.1:1:2", " 127.0.0.1", "",
]  # fmt: skip
"""Hosts that are not a name with at most a port."""


@pytest.mark.parametrize(
    ("listen", "allowed_host", "accepted", "rejected"),
    [
        (
            "127.0.0.1",
            (),
            ["127.0.0.1", "127.0.0.1:80", "localhost", "LOCALHOST:1", "[::1]", "[::1]:80"],
            ["evil.example", "10.0.0.1", "localhost.evil", *MORE],
        ),
        ("0.0.0.0", (), ["10.0.0.1:8080", "localhost:1", "[fe80::1]"], ["evil.example", "recorder", *MORE]),
        ("10.0.0.1", ("Door.Example.",), ["10.0.0.1", "door.example:80"], ["127.0.0.1", "localhost", "example"]),
        ("recorder.lan", (), ["recorder.lan:80"], ["10.0.0.1", "recorder"]),
    ],
)
def test_accepted_hosts_are_the_own_address_and_the_configured_names(
    listen: str, allowed_host: tuple[str, ...], accepted: list[str], rejected: list[str]
) -> None:
    hosts = Hosts(listen, allowed_host)
    assert [host for host in accepted if host not in hosts] == []
    assert [host for host in rejected if host in hosts] == []


def test_an_allowed_host_is_accepted_as_a_request_names_it() -> None:
    written = ("cameras.example:8443", "[2001:DB8::7]", "[2001:db8::8]:8443", "2001:db8::9", "door.example")
    allowed = ConsoleSettings(allowed_host=written).allowed_host
    assert allowed == ("cameras.example", "2001:db8::7", "2001:db8::8", "2001:db8::9", "door.example")
    requests = ("cameras.example:8443", "cameras.example", "[2001:db8::7]:80", "[2001:db8::8]:8443", "[2001:db8::9]")
    assert [host for host in requests if host not in Hosts("127.0.0.1", allowed)] == []
