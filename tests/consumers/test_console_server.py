"""The end of the console's web server."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
import uvicorn

from consumers.console.server import Server


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Do nothing: the test sends no request."""


async def test_the_event_loop_does_not_watch_the_listening_socket_when_it_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched: list[bool] = []

    async def shutdown(_: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        watched.extend(asyncio.get_running_loop().remove_reader(each) for each in sockets or ())

    monkeypatch.setattr(uvicorn.Server, "shutdown", shutdown)
    server = Server(uvicorn.Config(app, lifespan="off", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve([listening]))
        await server.listens.wait()
        server.should_exit = True
        await serving
    assert watched == [False]
