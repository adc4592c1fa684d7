"""The order in which accepted connections are admitted."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from consumers.console.access import acceptor
from consumers.console.access.acceptor import Acceptor
from tests.waiting import PATIENCE_S, until

ONE, OTHER = "127.0.0.3", "127.0.0.4"


class Recorded(asyncio.Protocol):
    """Notes who is admitted."""

    def __init__(self, admitted: list[object]) -> None:
        self._admitted = admitted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the peer."""
        self._admitted.append(transport.get_extra_info("peername"))


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as made:
        yield made


def connected(listening: socket.socket, source: str) -> socket.socket:
    """A client whose connection waits to be accepted."""
    return socket.create_connection(listening.getsockname(), timeout=PATIENCE_S, source_address=(source, 0))


async def admitted(listening: socket.socket, clients: list[socket.socket], count: int) -> list[object]:
    """The clients in the order of their admission, once there are `count`."""
    peers: list[object] = []
    made = Acceptor(listening, lambda: Recorded(peers), None)
    made.open()
    try:
        await until(lambda: len(peers) >= count)
        names = {client.getsockname(): number for number, client in enumerate(clients)}
        return [names[peer] for peer in peers]
    finally:
        made.close()
        for client in clients:
            client.close()


async def test_addresses_are_admitted_in_turns(listening: socket.socket) -> None:
    clients = [connected(listening, source) for source in (*[ONE] * 50, OTHER)]
    order = await admitted(listening, clients, 51)
    assert order.index(50) == 1
    assert [each for each in order if each != 50] == list(range(50))


async def test_of_too_many_that_wait_the_oldest_of_the_address_are_closed(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "MAX_WAITING_OF_ADDRESS", 4)
    clients = [connected(listening, source) for source in (OTHER, *[ONE] * 10)]
    assert await admitted(listening, clients, 5) == [0, 7, 8, 9, 10]


async def test_a_connection_that_still_waits_is_closed_at_the_end(listening: socket.socket) -> None:
    peers: list[object] = []
    made = Acceptor(listening, lambda: Recorded(peers), None)
    made.open()
    clients = [connected(listening, ONE) for _ in range(3)]
    made._accept()
    made.close()
    await asyncio.sleep(0)
    for client in clients:
        client.settimeout(PATIENCE_S)
        with client, contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert peers == []


@pytest.mark.parametrize(("number", "pauses"), [(errno.EMFILE, True), (errno.ECONNABORTED, False)])
async def test_without_a_free_descriptor_it_pauses_and_another_error_costs_one_connection(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch, number: int, pauses: bool
) -> None:
    class Failing:
        """A listening socket that fails once."""

        failures = 1

        def __getattr__(self, name: str) -> object:
            return getattr(listening, name)

        def accept(self) -> tuple[socket.socket, tuple[str, int]]:
            if self.failures:
                self.failures -= 1
                raise OSError(number, "no")
            return listening.accept()

    monkeypatch.setattr(acceptor, "_PAUSE_S", 0.05)
    failing: Any = Failing()
    with connected(listening, ONE):
        peers: list[object] = []
        made = Acceptor(failing, lambda: Recorded(peers), None)
        made.open()
        made._accept()
        assert asyncio.get_running_loop().remove_reader(listening) is not pauses
        if not pauses:
            made.open()
        await until(lambda: len(peers) == 1)
        made.close()


async def test_as_many_wait_as_there_is_room_for(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "MAX_WAITING", 2)
    made = Acceptor(listening, lambda: Recorded([]), None)
    made.open()
    clients = [connected(listening, ONE) for _ in range(3)]
    made._accept()
    assert sum(map(len, made._waiting.values())) == 2
    made.close()
    for client in clients:
        client.close()
