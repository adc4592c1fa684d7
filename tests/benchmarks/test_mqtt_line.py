"""An attacker's MQTT connection, with packets that arrive whole or in parts."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.harness.mqtt_line import Line, RefusedError
from producers.bridge.mqtt.packets import publish_qos_0

ACCEPTED = bytes.fromhex("200b 00 00 08 22000a 270100 0000")
"""A CONNACK of mosquitto: success, with two properties."""
REFUSED = bytes.fromhex("2003 00 87 00")


@contextmanager
def broker(*answers: bytes) -> Iterator[tuple[str, int]]:
    """Run a broker that answers a CONNECT with these segments, and leaves the connection open until the end."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            link, _ = server.accept()
            with link:
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                link.recv(1000)
                for answer in answers:
                    link.sendall(answer)
                link.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()
        thread.join()


def test_messages_after_a_long_connack_are_received() -> None:
    sent = publish_qos_0("site/camera/status", b"online")
    for answers in ((ACCEPTED + sent,), (ACCEPTED[:4], ACCEPTED[4:], sent)):
        with broker(*answers) as address, Line(address, None) as line:
            for _ in range(500):
                assert line.listen()
                if line.heard:
                    break
            assert line.heard == [("site/camera/status", b"online")]


def test_a_rejected_connect_raises_an_error() -> None:
    for answer in (REFUSED, b"\x00" * 6):
        with broker(answer) as address, pytest.raises(RefusedError, match="expected a CONNACK of success"):
            Line(address, None)
