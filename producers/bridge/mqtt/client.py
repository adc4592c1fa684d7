"""paho's MQTT client with a faster receive path for PUBLISH packets."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from producers.bridge.mqtt.packets import PUBLISH, PacketSplitter, ProtocolError, parse_publish
from schemas.limits import MAX_BROKER_BYTES
from schemas.transport.mqtt.internals import Result, SocketClient

RECEIVE_BYTES: Final = 256 * 1024
GATHERED_BYTES: Final = 2**15
"""Bytes of a large read: more bytes are then available without waiting."""
RECORD_BYTES: Final = 2**14
"""Maximum bytes of one TLS record."""

OnPublish = Callable[[bytes, int, bytes, bool], None]
"""The fields of `Publish`."""


class PacketClient(SocketClient):
    """An MQTT 5 client that acknowledges nothing by itself.

    paho reads a packet by three to five `recv` calls and hands each PUBLISH through locks, logs and a message object,
    35 µs in all. Here one `recv` reads all available bytes. PUBLISH packets go directly to `on_publish_packet`, all
    other packets to paho's own handler.
    """

    def __init__(self, client_id: str, on_publish_packet: OnPublish) -> None:
        super().__init__(client_id)
        self._on_publish_packet = on_publish_packet
        self._splitter = PacketSplitter(MAX_BROKER_BYTES)
        self._last_read_bytes = 0
        # Reused: for a fresh buffer, the system would map and unmap pages at each read.
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))

    @property
    def is_caught_up(self) -> bool:
        """Whether the last read was small and ended with a whole packet: more may gather before the next."""
        return self._last_read_bytes < GATHERED_BYTES and self._splitter.is_empty

    def adopt(self, connected: socket.socket) -> Result:
        """Begin an MQTT connection on a connected socket."""
        self._splitter = PacketSplitter(MAX_BROKER_BYTES)
        return super().adopt(connected)

    def loop_read(self, max_packets: int = 1) -> Result:
        """Read once and handle every packet that is complete."""
        sock = self.socket()
        if not isinstance(sock, socket.socket):
            return Result.MQTT_ERR_NO_CONN
        try:
            length = self._receive(sock)
        except (BlockingIOError, ssl.SSLWantReadError):
            return Result.MQTT_ERR_SUCCESS
        except OSError:
            return self.lose()
        self._last_read_bytes = length
        if not length:
            return self.lose()
        self.note_arrival()
        on_publish_packet = self._on_publish_packet
        try:
            for first, body in self._splitter.feed(bytes(self._buffer[:length])):
                if first & 0xF0 == PUBLISH:
                    on_publish_packet(*parse_publish(first, body))
                elif (rc := self.handle_packet(first, body)) > 0:
                    return self.lose(rc)
        except ProtocolError:
            return self.lose(Result.MQTT_ERR_PROTOCOL)
        return Result.MQTT_ERR_SUCCESS

    def _receive(self, sock: socket.socket) -> int:
        """Read the received bytes into the buffer, from its beginning, and return their number.

        TLS returns one record at a time, usually one packet. The event loop cannot see the bytes that TLS has buffered,
        so all are read.
        """
        length = sock.recv_into(self._buffer)
        if isinstance(sock, ssl.SSLSocket) and length:
            with suppress(ssl.SSLWantReadError):
                while length <= RECEIVE_BYTES - RECORD_BYTES and (more := sock.recv_into(self._buffer[length:])):
                    length += more
        return length
