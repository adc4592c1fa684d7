"""Connections to a broker, opened on the event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from schemas.transport.mqtt.dial import dial


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_dialled_socket_is_connected_and_non_blocking(host: str, listening: int) -> None:
    with await dial(host, listening, 5.0) as dialled:
        assert dialled.getpeername() == ("127.0.0.1", listening)
        assert not dialled.getblocking()
        assert dialled.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_an_absent_broker_is_an_error() -> None:
    with pytest.raises(OSError):
        await dial("127.0.0.1", 1, 5.0)


async def test_the_next_address_of_a_name_is_tried_after_a_rejection(
    listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in (1, listening)]
    monkeypatch.setattr("schemas.transport.mqtt.dial.socket.getaddrinfo", lambda *_, **__: found)
    with await dial("broker", listening, 5.0) as dialled:
        assert dialled.getpeername()[1] == listening


async def test_a_silent_address_leaves_time_for_the_next_one(listening: int, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect

    async def silent_first(dialled: socket.socket, address: tuple[str, int]) -> None:
        await (asyncio.Event().wait() if address[1] == 1 else connect(dialled, address))

    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in (1, listening)]
    monkeypatch.setattr("schemas.transport.mqtt.dial.socket.getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(loop, "sock_connect", silent_first)
    with await dial("broker", listening, 2.0) as dialled:
        assert dialled.getpeername()[1] == listening


async def test_a_silent_broker_times_out(listening: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_dialled: socket.socket, _address: tuple[str, int]) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", hang)
    with pytest.raises(TimeoutError, match="timed out"):
        await dial("127.0.0.1", listening, 0.05)
