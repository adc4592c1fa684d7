"""The web server below the recorder's pages and the console."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from consumers.board.door import Door
from consumers.board.visitors import Visitor


class Server(uvicorn.Server):
    """A server that says when it has started, and leaves the signals of the process alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()
        self._doors: list[Door] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, by our own doors: uvicorn admits connections in the order of their arrival only."""
        await super().startup([])
        self._doors = [Door(each, self._visitor, self.config.ssl) for each in sockets or ()]
        for each in self._doors:
            each.open()
        self.listens.set()

    def _visitor(self) -> Visitor:
        return Visitor(self.config, self.server_state, self.lifespan.state)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit` is set, or cancelled."""
        try:
            await super().serve(sockets)
        finally:
            for each in self._doors:
                each.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
