"""The acceptor of connections: accepts at once, and admits to the server in turns, one of each address."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from consumers.console.access.connections import CONNECTIONS, REQUEST_S, RESET, network_of

LISTEN_QUEUE: Final = 1_024
"""Connections that the kernel holds until they are accepted. A client that finds the queue full retries after 1 s."""
MAX_WAITING: Final = 320
"""Accepted connections that wait for their turn."""
MAX_WAITING_OF_ADDRESS: Final = 192
"""Beyond this number, the oldest of the address is closed."""
ADMITTED_AT_ONCE: Final = 8
"""Connections admitted in one turn of the loop, which all others wait for. Those of three turns are fewer than
`MAX_OF_ADDRESS` and `RESERVE` of `visitors`: there is always one that has had its chance to send a request."""
MAX_HANDSHAKES: Final = 256
"""TLS handshakes under way. The oldest is given up for the newest, for a connection has no place before its end."""
_NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_S: Final = 1.0


class Acceptor:
    """Accepts the connections of one listening socket, from `open` to `close`."""

    def __init__(
        self, listening: socket.socket, protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None
    ) -> None:
        """Each admitted connection gets a `protocol`, behind TLS where there is a context."""
        self._listening = listening
        self._protocol = protocol
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, deque[socket.socket]] = {}
        """Waiting connections by address; the address whose turn is next comes first."""
        self._count = 0
        self._turn: asyncio.Handle | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._handshakes: dict[asyncio.Task[None], None] = {}

    def open(self) -> None:
        """Begin to accept."""
        self._listening.setblocking(False)
        self._listening.listen(LISTEN_QUEUE)
        self._loop.add_reader(self._listening, self._accept)

    def close(self) -> None:
        """Accept no more, and close what waits."""
        for handle in (self._turn, self._pause):
            if handle is not None:
                handle.cancel()
        with suppress(ValueError):  # the socket is closed already
            self._loop.remove_reader(self._listening)
        for each in self._handshakes:
            each.cancel()
        for line in self._waiting.values():
            for connection in line:
                connection.close()
        self._waiting.clear()

    def _accept(self) -> None:
        while self._count < MAX_WAITING:
            try:
                connection, address = self._listening.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    self._loop.remove_reader(self._listening)
                    self._pause = self._loop.call_later(_PAUSE_S, self.open)
                break
            connection.setblocking(False)
            network = network_of(address[0])
            line = self._waiting.setdefault(network, deque())
            line.append(connection)
            if len(line) > MAX_WAITING_OF_ADDRESS and network not in CONNECTIONS.shared:
                CONNECTIONS.counts["crowded"] += 1
                oldest = line.popleft()
                oldest.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                oldest.close()
            else:
                self._count += 1
        if self._waiting and self._turn is None:
            self._turn = self._loop.call_soon(self._admit)

    def _admit(self) -> None:
        """Admit some, one of each address in turn."""
        for _ in range(min(ADMITTED_AT_ONCE, self._count)):
            network = next(iter(self._waiting))
            line = self._waiting.pop(network)
            task = self._loop.create_task(self._begin(line.popleft()), name=f"handshake {network}")
            self._handshakes[task] = None
            task.add_done_callback(lambda done: self._handshakes.pop(done, None))
            self._count -= 1
            if line:
                self._waiting[network] = line
        while len(self._handshakes) > MAX_HANDSHAKES:
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            CONNECTIONS.counts["crowded"] += 1
            oldest.cancel()
        self._turn = self._loop.call_soon(self._admit) if self._waiting else None

    async def _begin(self, connection: socket.socket) -> None:
        timeout_s = REQUEST_S if self._tls is not None else None
        # What the client does wrong ends its own connection; asyncio closes it.
        with suppress(OSError):
            await self._loop.connect_accepted_socket(
                self._protocol, connection, ssl=self._tls, ssl_handshake_timeout=timeout_s
            )
