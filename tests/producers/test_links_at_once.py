"""A broker's limit of concurrent connection attempts."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from producers.publisher import Broker, LinkSettings
from producers.publisher.link import Link
from tests.waiting import until


class IgnoringOwner:
    """An owner of a link that ignores all events."""

    def on_up(self, session_present: bool, receive_maximum: int, packet_bytes: int) -> None: ...

    def on_puback(self, mid: int, reason: int) -> None: ...

    def on_message(self, topic: str, payload: bytes, retained: bool) -> None: ...

    def on_read(self) -> None: ...


async def test_an_unanswered_attempt_delays_the_next_links_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    began = 0
    release = asyncio.Event()

    async def hang(_host: str, _port: int, _timeout_s: float, _tls: object) -> socket.socket:
        nonlocal began
        began += 1
        await release.wait()
        raise OSError("no answer")

    monkeypatch.setattr("schemas.transport.mqtt.connection.dial", hang)
    broker = Broker("127.0.0.1", 1, at_once=1)
    links = [Link(IgnoringOwner(), f"pl{n}", broker, lambda: ("t", b"w"), [], LinkSettings()) for n in range(2)]
    for link in links:
        link.tick(time.monotonic())
    await until(lambda: began == 1)
    for _ in range(5):
        await asyncio.sleep(0)
    assert began == 1
    release.set()
    await until(lambda: began == 2)
    for link in links:
        await link.close(1.0)
