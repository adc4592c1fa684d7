"""Loopback ports that a state folder keeps from one run to the next."""

from __future__ import annotations

import random
import socket
import threading
from pathlib import Path

from schemas.errors import BrokerError
from schemas.runtime.disk import is_full
from schemas.runtime.json_files import read_json, write_json

LOOPBACK = "127.0.0.1"
FIRST_PORT = 10240
_TRIES = 200


def is_free(port: int) -> bool:
    """Return whether a server could listen on `port` now. Connections of its predecessor in TIME_WAIT do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a free loopback port below the range that the kernel gives to outgoing connections.

    A client that keeps dialling a dead server could get a port of that range as its source: the server's own port. It
    would then be connected to itself, and block the server's return. Raises BrokerError if none of `_TRIES` ports is
    free.
    """
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ceiling = low if low > FIRST_PORT + _TRIES else 65536
    for _ in range(_TRIES):
        port = random.randrange(FIRST_PORT, ceiling)
        if is_free(port):
            return port
    raise BrokerError(
        f"port: expected a free one between {FIRST_PORT} and {ceiling}, got none in {_TRIES} tries. Stop "
        "other programs on loopback."
    )


class Ports:
    """Ports by name, stored in `folder`/ports.json. One process uses a folder, and its threads share one object."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ports.json"
        self._allocating = threading.Lock()
        self._ports: dict[str, int] = {
            name: port for name, port in read_json(self._path).items() if isinstance(port, int)
        }

    def allocate(self, name: str) -> int:
        """Return the stored port of `name` if it is free; otherwise choose, store and return another."""
        with self._allocating:
            port = self._ports.get(name)
            if port is None or not is_free(port):
                port = free_port()
                while port in self._ports.values():
                    port = free_port()
                self._ports[name] = port
                try:
                    write_json(self._path, self._ports)
                except OSError as error:
                    if not is_full(error):  # the run continues with this port; the next run chooses another
                        raise
            return port
