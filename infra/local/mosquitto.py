"""Eclipse Mosquitto on a loopback port, with the shipped configuration."""

from __future__ import annotations

import getpass
import shutil
import socket
from typing import ClassVar

from infra.local.service import INFRA, Service, fill
from schemas.errors import BrokerError
from schemas.limits import MAX_BROKER_BYTES

TEMPLATE = INFRA / "mosquitto" / "mosquitto.conf.in"
SYSTEM_PATH = "/usr/sbin:/usr/local/sbin"

# MQTT 5 CONNECT: clean start, keep-alive 5 s, no properties, client id "ready"; its answer is a CONNACK (0x20)
# whose fourth byte is the reason, 0 for success.
_CONNECT = b"\x10\x12\x00\x04MQTT\x05\x02\x00\x05\x00\x00\x05ready"
_DISCONNECT = b"\xe0\x00"


def mosquitto_binary() -> str:
    """Where mosquitto is. Raises BrokerError that names the package when it is not installed."""
    # Debian puts it in /usr/sbin, which is not on every user's path.
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path=SYSTEM_PATH)
    if found is None:
        raise BrokerError("expected the program mosquitto, found none: install the Debian package mosquitto")
    return found


def answers_mqtt(host: str, port: int, timeout_s: float = 1.0) -> bool:
    """Whether an MQTT 5 broker at `host`:`port` accepts an anonymous client."""
    try:
        with socket.create_connection((host, port), timeout_s) as link:
            link.sendall(_CONNECT)
            answer = link.recv(4)
            accepted = len(answer) == 4 and answer[0] == 0x20 and answer[3] == 0
            if accepted:
                link.sendall(_DISCONNECT)
            return accepted
    except OSError:
        return False


class Mosquitto(Service):
    """One mosquitto. Its sessions and retained messages stay in the state folder across restarts."""

    role: ClassVar[str] = "mosquitto"
    port_names: ClassVar[tuple[str, ...]] = ("mosquitto",)

    def _command(self) -> list[str]:
        program = mosquitto_binary()
        (self.folder / "data").mkdir(exist_ok=True)
        fill(
            TEMPLATE,
            self.folder / "mosquitto.conf",
            HOST=self.host,
            PORT=self.port,
            DATA="data/",
            # Started by root it would turn into the user `mosquitto`, who may not write in this folder, and
            # a change of user also clears the signal that ends it with its parent.
            USER=getpass.getuser(),
            MAX_PACKET_BYTES=MAX_BROKER_BYTES,
        )
        return [program, "-c", "mosquitto.conf"]

    def _answers(self) -> bool:
        return answers_mqtt(self.host, self.port)
