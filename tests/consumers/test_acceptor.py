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


class RecordingProtocol(asyncio.Protocol):
    """A protocol that records the admitted peers."""

    def __init__(self, admitted: list[object]) -> None:
        self._admitted = admitted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Record the peer."""
        self._admitted.append(transport.get_extra_info("peername"))


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield listener


def connect(listening: socket.socket, source: str) -> socket.socket:
    """Return a client whose connection waits to be accepted."""
    return socket.create_connection(listening.getsockname(), timeout=PATIENCE_S, source_address=(source, 0))


async def admission_order(listening: socket.socket, clients: list[socket.socket], count: int) -> list[object]:
    """Admit `count` clients. Return their numbers in the order of admission."""
    peers: list[object] = []
    admission = Acceptor(listening, lambda: RecordingProtocol(peers), None)
    admission.open()
    try:
        await until(lambda: len(peers) >= count)
        names = {client.getsockname(): number for number, client in enumerate(clients)}
        return [names[peer] for peer in peers]
    finally:
        admission.close()
        for client in clients:
            client.close()


async def test_addresses_are_admitted_in_turns(listening: socket.socket) -> None:
    clients = [connect(listening, source) for source in (*[ONE] * 50, OTHER)]
    order = await admission_order(listening, clients, 51)
    assert order.index(50) == 1
    assert [each for each in order if each != 50] == list(range(50))


async def test_the_oldest_waiting_connections_of_an_address_beyond_its_bound_are_closed(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "MAX_WAITING_OF_ADDRESS", 4)
    clients = [connect(listening, source) for source in (OTHER, *[ONE] * 10)]
    assert await admission_order(listening, clients, 5) == [0, 7, 8, 9, 10]


async def test_waiting_connections_are_closed_with_the_acceptor(listening: socket.socket) -> None:
    peers: list[object] = []
    admission = Acceptor(listening, lambda: RecordingProtocol(peers), None)
    admission.open()
    clients = [connect(listening, ONE) for _ in range(3)]
    admission._accept()
    admission.close()
    await asyncio.sleep(0)
    for client in clients:
        client.settimeout(PATIENCE_S)
        with client, contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert peers == []


@pytest.mark.parametrize(("number", "pauses"), [(errno.EMFILE, True), (errno.ECONNABORTED, False)])
async def test_accepting_pauses_without_a_free_descriptor_and_continues_after_other_errors(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch, number: int, pauses: bool
) -> None:
    class Failing:
        """A listening socket whose first accept fails."""

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
    with connect(listening, ONE):
        peers: list[object] = []
        admission = Acceptor(failing, lambda: RecordingProtocol(peers), None)
        admission.open()
        admission._accept()
        assert asyncio.get_running_loop().remove_reader(listening) is not pauses
        if not pauses:
            admission.open()
        await until(lambda: len(peers) == 1)
        admission.close()


async def test_the_number_of_waiting_connections_is_bounded(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "MAX_WAITING", 2)
    admission = Acceptor(listening, lambda: RecordingProtocol([]), None)
    admission.open()
    clients = [connect(listening, ONE) for _ in range(3)]
    admission._accept()
    assert sum(map(len, admission._waiting.values())) == 2
    admission.close()
    for client in clients:
        client.close()
