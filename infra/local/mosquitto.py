"""Eclipse Mosquitto on a loopback port, with the shipped configuration."""

from __future__ import annotations

import os
import pwd
import re
import socket
import ssl
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from infra.local.ports import Ports
from infra.local.process import last_line
from infra.local.programs import find_program, require_program
from infra.local.service import INFRA, Service, fill
from infra.local.tls import tls_connection
from infra.pki.authority import CRL_FILE
from infra.pki.roles import rights_file, role_folder, role_tls
from schemas.clock import unix_ms
from schemas.errors import BrokerError
from schemas.limits import MAX_BROKER_BYTES, MAX_CAMERAS
from schemas.runtime.open_files import raise_open_files
from schemas.transport.access import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, Login, Tls, tls_refusal
from schemas.transport.mqtt.packets import packet, text

TEMPLATE = INFRA / "mosquitto" / "mosquitto.conf.in"
RELEASE: Final = "2.0"
"""The only release whose rights accept cameras: from 2.1 on, `%u` in a pattern matches no name with a slash."""
_VERSION: Final = re.compile(r"mosquitto version ((\d+\.\d+)\S*)")

_DISCONNECT = b"\xe0\x00"
_UNREADABLE: Final = "Couldn't open database."
"""End of mosquitto's last line if it cannot restore its sessions and retained messages."""
PLAIN: Final = "allow_anonymous true"
MAX_CONNECTIONS: Final = MAX_CAMERAS + 256
"""Maximum number of connections: cameras, roles, and some for diagnosis."""
_OTHER_FILES: Final = 64
"""Files of mosquitto besides connections: listeners, log, lists, database."""


def mosquitto_binary() -> str:
    """Return the path of mosquitto's program. Raises BrokerError if it is not installed, or of another release."""
    found = require_program(find_program("mosquitto"), "mosquitto")
    version, release = _version(found)
    if release != RELEASE:
        raise BrokerError(
            f"mosquitto: expected release {RELEASE}, whose rights accept cameras, got {version} of {found}. Put "
            f"release {RELEASE} first on PATH."
        )
    return found


def _version(program: str) -> tuple[str, str]:
    """Return the version and the release of a mosquitto, for example "2.0.22" and "2.0"."""
    # Its exit status after printing the help differs between releases.
    said = subprocess.run([program, "-h"], capture_output=True, text=True, timeout=20, check=False).stdout
    found = _VERSION.match(said)
    return (found[1], found[2]) if found is not None else ("no version", "")


def answers_mqtt(host: str, port: int, timeout_s: float = 1.0, tls: Tls | None = None) -> bool:
    """Return whether an MQTT 5 broker at `host`:`port` accepts a client: an anonymous one, or the one of `tls`."""
    try:
        return mqtt_refusal(host, port, timeout_s, tls) is None
    except OSError:
        return False


def mqtt_refusal(host: str, port: int, timeout_s: float, tls: Tls | None, login: Login | None = None) -> str | None:
    """Return the permanent reason for which the MQTT 5 broker there rejects a client; None if it accepts.

    Raises OSError if no broker answers, which may be temporary.
    """
    try:
        context = None if tls is None else tls.context()
        with _connection((host, port), context, timeout_s) as link:
            link.sendall(_connect(login))
            answer = link.recv(4)
            if len(answer) < 4 or answer[0] != 0x20:
                raise ConnectionError("it does not answer as MQTT 5 brokers do")
            if answer[3] == 0:
                link.sendall(_DISCONNECT)
    except ssl.SSLError as error:
        # A server that is just starting may close a connection in the middle of the handshake.
        if isinstance(error, ssl.SSLEOFError) or (why := tls_refusal(error)) is None:
            raise
        return why
    return None if answer[3] == 0 else _NOT_ACCEPTED.get(answer[3], f"the broker's reason code is {answer[3]:#04x}")


def _connection(
    address: tuple[str, int], context: ssl.SSLContext | None, timeout_s: float
) -> closing[ssl.SSLSocket] | socket.socket:
    if context is None:
        return socket.create_connection(address, timeout_s)
    return tls_connection(address, context, timeout_s)


def _connect(login: Login | None) -> bytes:
    """Return an MQTT 5 CONNECT: clean start, keep-alive 5 s, no properties, client id "ready".

    The answer to it is a CONNACK (0x20) whose fourth byte is the reason, 0 for success.
    """
    texts = ["ready"] + ([login.user, login.password.get_secret_value()] if login is not None else [])
    rest = b"".join(text(part.encode()) for part in texts)
    flags = b"\xc2" if login is not None else b"\x02"
    return packet(0x10, text(b"MQTT") + b"\x05" + flags + b"\x00\x05\x00" + rest)


_NOT_ACCEPTED: Final = {
    0x84: "a broker without MQTT 5",
    0x86: "wrong user or password",
    0x87: "the broker does not authorise this client",
}


class Mosquitto(Service):
    """One mosquitto. Its sessions and retained messages stay in the state folder across restarts."""

    role = "mosquitto"
    port_names = ("mosquitto",)

    def __init__(
        self,
        state: Path,
        ports: Ports | None = None,
        *,
        ready_s: float = 60.0,
        pki: Path | None = None,
        outside: tuple[str, int] | None = None,
        print_line: Callable[[str], None] = print,
    ) -> None:
        """`pki` is the folder of the authority for all clients; None accepts every client with all rights.

        `outside` is the address and port of a second listener, for cameras on other machines. `print_line` prints a
        warning for the user.
        """
        super().__init__(state, ports, ready_s=ready_s)
        self._print_line = print_line
        self._outside = [outside] if outside is not None else []
        self._pki = pki.resolve() if pki is not None else None

    def _command(self) -> list[str]:
        program = mosquitto_binary()
        # Mosquitto keeps the soft limit that it inherits, usually 1,024: later clients would get no connection.
        raise_open_files(MAX_CONNECTIONS + _OTHER_FILES)
        (self.folder / "data").mkdir(exist_ok=True)
        fill(
            TEMPLATE,
            self.folder / "mosquitto.conf",
            DATA="data/",
            # Started by root, it would switch to the user `mosquitto`, who may not write in this folder. A change of
            # user also clears the signal that ends it with its parent.
            USER=_own_user(),
            MAX_PACKET_BYTES=MAX_BROKER_BYTES,
            LISTENERS=listeners([(self.host, self.port), *self._outside], self._pki),
        )
        return [program, "-c", "mosquitto.conf"]

    def _repair(self) -> bool:
        """Rename a damaged `mosquitto.db`. Cameras and bridges send again what it held, except retained commands."""
        database = self.folder / "data" / "mosquitto.db"
        if not last_line(self.log).endswith(_UNREADABLE) or not database.exists():
            return False
        aside = database.with_name(f"{database.name}.damaged-{unix_ms()}")
        database.rename(aside)
        self._print_line(
            f"mosquitto: expected a readable {database}, got a damaged file, which is now {aside.name}. Cameras send "
            "their frames again; repeat commands for cameras that were offline."
        )
        return True

    def _answers(self) -> bool:
        tls = role_tls(self._pki, "health") if self._pki is not None else None
        return answers_mqtt(self.host, self.port, tls=tls)


def _own_user() -> str:
    """Return the name of the user of this process. The environment may name another one, as after `su`."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # it has no name, so it is not root, and mosquitto does not change it
        return str(os.geteuid())


def listeners(places: Sequence[tuple[str, int]], pki: Path | None) -> str:
    """Return the lines of mosquitto's configuration for a listener at each host and port, and for access control.

    With `pki`, the name in a client's certificate is its user name and its client id: no other client can take over its
    session. Without `pki`, every client has all rights.
    """
    common, each = PLAIN, f"max_connections {MAX_CONNECTIONS}"
    if pki is not None:
        own = role_folder(pki, "mosquitto")
        common = f"allow_anonymous false\nacl_file {rights_file(pki)}"
        # Settings of TLS apply to the listener above them alone.
        each += "\n" + "\n".join(
            (
                f"cafile {own / AUTHORITY_FILE}",
                f"certfile {own / CERTIFICATE_FILE}",
                f"keyfile {own / KEY_FILE}",
                f"crlfile {own / CRL_FILE}",
                "tls_version tlsv1.2",
                "require_certificate true",
                "use_identity_as_username true",
                "use_username_as_clientid true",
            )
        )
    return "\n".join([*(f"listener {port} {host}\n{each}" for host, port in places), common])
