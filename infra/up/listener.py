"""The MQTT listener for cameras on other machines: `up --listen ADDRESS[:PORT]`."""

from __future__ import annotations

import ipaddress
import re
import shlex
import socket
from typing import Final

from infra.pki.authority import LOCAL_HOSTS, certificate_hosts
from infra.pki.roles import role_folder
from infra.state_folder import Layout
from infra.up.settings import UpSettings
from schemas.errors import ConfigError
from schemas.runtime.json_files import read_json
from schemas.settings import address, format_address
from schemas.transport.access import CERTIFICATE_FILE

MQTT_TLS_PORT: Final = 8883
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def parse_listener(text: str) -> tuple[str, int]:
    """Read `ADDRESS[:PORT]`; ConfigError for another form, and for addresses that no device can connect to."""
    form = "expected the address or host name by which cameras reach this machine, with or without :PORT"
    host, port = address(text if _has_port(text) else f"{text}:{MQTT_TLS_PORT}")
    try:
        every = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        if not _NAME.fullmatch(host):  # it becomes a line of mosquitto's settings
            raise ConfigError(f"--listen: {form}, got {text!r}. Correct it.") from None
        every = False
    if every:
        raise ConfigError(f"--listen: {form}, got {text!r}. Give one address: enrolments and the certificate name it.")
    return host, port


def _has_port(text: str) -> bool:
    return "]:" in text or text.count(":") == 1


def outside_listener(settings: UpSettings) -> tuple[str, int] | None:
    """Return the listener of the settings; ConfigError when it is impossible, or would admit strangers."""
    if settings.listen is None:
        return None
    host, port = parse_listener(settings.listen)
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigError(
            f"--listen: expected an address of this machine with a free port, got {host}:{port}: "
            f"{why.lower()}. Choose another address."
        ) from None
    loopback = ipaddress.ip_address(str(place[0])).is_loopback
    if loopback and host not in (*LOCAL_HOSTS, str(place[0])):
        raise ConfigError(
            f"--listen: expected an address that other machines reach, got {host}, which is {place[0]} on this one. "
            "Give the address instead of the name."
        )
    if settings.plain and not loopback:
        raise ConfigError(
            f"--listen: expected a loopback address with --plain, got {host}. Without TLS anybody could connect: leave "
            "out --plain."
        )
    return host, port


def listener_for_devices(layout: Layout, given: str | None) -> str | None:
    """Return the broker for an enrolment, `host:port`: the `given` one, else the listener of the running or last `up`.

    Raises ConfigError if that `up` cannot be the `given` broker: it listens elsewhere, or its certificate has other
    names. None without a `given` one and a listener.
    """
    asked = given is not None and address(given)
    if not layout.run.is_file():  # not a folder of `up`: the broker is run by others
        return given
    outside = parse_listener(layout.listen) if layout.listen else None
    port: int | None = read_json(layout.folder / "ports.json").get("mosquitto")
    local = [(host, port) for host in LOCAL_HOSTS]
    if given is None or not asked:
        found = outside or ((LOCAL_HOSTS[1], port) if port else None)
        return format_address(found) if found is not None else None
    names = certificate_hosts(role_folder(layout.pki, "mosquitto") / CERTIFICATE_FILE)
    named = _spelt(asked[0]) in map(_spelt, names)
    reached = asked in local or (outside is not None and asked[1] == outside[1] and named)
    if not reached:
        where = " and ".join([*([format_address(outside)] if outside else []), f"127.0.0.1:{port}"])
        raise ConfigError(
            f"--mqtt: expected {where}, where `pointillist up` of {layout.folder} listens, got {given}. Start it with "
            f"`pointillist up --listen {shlex.quote(given)} {layout.state_option}` first."
        )
    return given


def _spelt(host: str) -> str:
    """Return an address in its usual form, and a name in lower case."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()
