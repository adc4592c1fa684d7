"""One MQTT 5 connection of a client that sends arbitrary packets and does not wait for answers."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

from producers.bridge.mqtt.packets import PUBLISH, PacketSplitter, ProtocolError, parse_publish
from schemas.limits import MAX_BROKER_BYTES
from schemas.transport.access import Tls, secured
from schemas.transport.mqtt.packets import packet, text

ANSWER_S: Final = 5.0
_CONNACK: Final = 0x20
_NO_WAIT_S: Final = 0.02


class RefusedError(OSError):
    """The broker has rejected the connection."""


class Line:
    """An accepted connection.

    The constructor raises `RefusedError` or another OSError if the broker rejects it. It sends `first` right after the
    CONNECT.
    """

    def __init__(
        self,
        address: tuple[str, int],
        tls: Tls | None,
        client_id: str = "somebody",
        will: tuple[str, bytes] | None = None,
        first: bytes = b"",
    ) -> None:
        self.heard: list[tuple[str, bytes]] = []
        """Topic and payload of each received message."""
        self._splitter = PacketSplitter(MAX_BROKER_BYTES)
        self._packet_id = 0
        context = None if tls is None else tls.context()
        plain = socket.create_connection(address, ANSWER_S)
        self._link = plain if context is None else secured(plain, context, address[0], ANSWER_S)
        try:
            self._link.settimeout(ANSWER_S)
            self._link.sendall(connect(client_id, will) + first)
            self._await_acceptance()
        except BaseException:
            self._link.close()
            raise

    def _await_acceptance(self) -> None:
        """Read the whole CONNACK: what is left of it would be read as the head of the next packet."""
        packets: list[tuple[int, bytes]] = []
        try:
            while not packets:
                data = self._link.recv(65_536)
                if not data:
                    raise RefusedError("MQTT answer: expected a CONNACK of success, got the end")
                packets = self._splitter.feed(data)
            first, body = packets[0]
            if first != _CONNACK or len(body) < 2 or body[1]:
                raise RefusedError(f"MQTT answer: expected a CONNACK of success, got {first:02x} {body.hex()}")
            self._keep(packets[1:])
        except ProtocolError as error:
            raise RefusedError(f"MQTT answer: expected a CONNACK of success, got {error}") from None

    def _keep(self, packets: Iterable[tuple[int, bytes]]) -> None:
        for first, body in packets:
            if first & 0xF0 == PUBLISH:
                found = parse_publish(first, body)
                self.heard.append((found.topic.decode(errors="replace"), found.payload))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close without DISCONNECT, so that the broker publishes the will."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)
        self._link.close()

    def send(self, packets: bytes) -> None:
        """Send packets; raise OSError if the broker has closed the connection."""
        self._link.settimeout(ANSWER_S)
        self._link.sendall(packets)

    def subscribe(self, name: str) -> None:
        """Subscribe to a filter at QoS 1 without waiting for the answer."""
        self._packet_id = self._packet_id % 65_535 + 1
        self.send(subscription(name, self._packet_id))

    def listen(self) -> bool:
        """Read the received data without waiting for more. Return whether the connection is still open."""
        self._link.settimeout(_NO_WAIT_S)
        try:
            while True:
                data = self._link.recv(65_536)
                if not data:
                    return False
                self._keep(self._splitter.feed(data))
        except (TimeoutError, ssl.SSLWantReadError):
            return True
        except (OSError, ProtocolError):
            return False


def connect(client_id: str, will: tuple[str, bytes] | None = None) -> bytes:
    """Return a CONNECT packet: clean start, keep-alive 60 s, the will at QoS 1 and retained."""
    flags, said = 2, b""
    if will is not None:
        flags |= 0x2C
        said = b"\0" + text(will[0].encode()) + text(will[1])
    return packet(0x10, text(b"MQTT") + bytes((5, flags, 0, 60, 0)) + text(client_id.encode()) + said)


def subscription(name: str, packet_id: int) -> bytes:
    """Return a SUBSCRIBE packet for a filter at QoS 1."""
    return packet(0x82, packet_id.to_bytes(2, "big") + b"\0" + text(name.encode()) + b"\x01")
