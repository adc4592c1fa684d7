"""Connections to the broker, made on the loop of all cameras."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from producers.publisher.broker import Broker


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_what_is_dialled_is_connected_and_does_not_block(host: str, listening: int) -> None:
    with await Broker(host, listening, at_once=1).dial(5.0) as dialled:
        assert dialled.getpeername() == ("127.0.0.1", listening)
        assert not dialled.getblocking()


async def test_a_broker_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError):
        await Broker("127.0.0.1", 1, at_once=1).dial(5.0)


async def test_the_next_address_of_a_name_is_tried_when_one_refuses(
    listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in (1, listening)]
    monkeypatch.setattr("producers.publisher.broker.socket.getaddrinfo", lambda *_, **__: found)
    with await Broker("broker", listening, at_once=1).dial(5.0) as dialled:
        assert dialled.getpeername()[1] == listening


async def test_a_broker_that_does_not_answer_is_given_up_and_others_have_their_turn(
    listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    connect, began, hangs = loop.sock_connect, 0, asyncio.Event()

    async def hangs_first(dialled: socket.socket, address: tuple[str, int]) -> None:
        nonlocal began
        began += 1
        if began == 1:
            hangs.set()
            await asyncio.Event().wait()
        await connect(dialled, address)

    monkeypatch.setattr(loop, "sock_connect", hangs_first)
    broker = Broker("127.0.0.1", listening, at_once=1)
    first, second = asyncio.create_task(broker.dial(0.2)), asyncio.create_task(broker.dial(5.0))
    await hangs.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    assert began == 1  # one at a time
    with pytest.raises(TimeoutError, match="timed out"):
        await first
    with await second as dialled:
        assert dialled.getpeername()[1] == listening
