"""The console's web server: uvicorn with bounded connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from consumers.console.access.acceptor import Acceptor
from consumers.console.access.connections import Connection


class Server(uvicorn.Server):
    """A server with an event for its start; it leaves the signals of the process alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()
        self._acceptors: list[Acceptor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, by our own doors: uvicorn admits connections in the order of their arrival only."""
        await super().startup([])
        self._acceptors = [Acceptor(each, self._connection, self.config.ssl) for each in sockets or ()]
        for each in self._acceptors:
            each.open()
        self.listens.set()

    def _connection(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End. The acceptors close before the sockets, whose numbers later connections may get."""
        self._close_acceptors()
        await super().shutdown(sockets)

    def _close_acceptors(self) -> None:
        for each in self._acceptors:
            each.close()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit` is set, or cancelled."""
        try:
            await super().serve(sockets)
        finally:
            self._close_acceptors()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
