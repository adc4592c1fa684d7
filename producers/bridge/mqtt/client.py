"""paho's MQTT client with a faster way in for PUBLISH packets and a faster way out for PUBACKs."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from producers.bridge.mqtt.packets import PUBLISH, PacketSplitter, ProtocolError, parse_publish
from schemas.limits import MAX_BROKER_BYTES

RECEIVE_BYTES: Final = 256 * 1024
RECORD_BYTES: Final = 2**14
"""Maximum bytes of one TLS record."""

OnPublish = Callable[[bytes, int, bytes], None]
"""Topic, packet id (0 at QoS 0), payload."""


class PacketClient(Client):
    """An MQTT 5 client that acknowledges nothing by itself, to be driven by an event loop.

    paho reads a packet by three to five `recv` calls and hands each PUBLISH through locks, logs and a message object,
    35 µs in all. Here one `recv` takes what is there, PUBLISH packets go straight to `on_publish_packet`, and every
    other packet to paho's own handler. What this relies on in paho is listed here and held by tests: `_in_packet` and
    `_packet_handle` (a complete packet), `_loop_rc_handle` (close and report), `_create_socket` (called by
    `reconnect`), `_packet_queue` (bytes to write), `_last_bytes_received` and `_ping_t` (keep-alive).
    """

    def __init__(self, client_id: str, on_publish_packet: OnPublish) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5)
        self._on_publish_packet = on_publish_packet
        self._splitter = PacketSplitter(MAX_BROKER_BYTES)
        self._connected_socket: socket.socket | None = None
        # Kept: the system would give and take back pages of a fresh one at each read.
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))

    def configure(self, host: str, port: int, *, keepalive_s: int, receive_maximum: int) -> None:
        """Set the fields of CONNECT. Every session starts clean and ends with its connection."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 0
        properties.ReceiveMaximum = receive_maximum
        properties.MaximumPacketSize = MAX_BROKER_BYTES
        self.connect_async(host, port, keepalive_s, clean_start=True, properties=properties)

    def adopt(self, connected: socket.socket) -> None:
        """Begin an MQTT connection on a socket that is connected already, so that nothing here waits."""
        self._connected_socket = connected
        self._splitter = PacketSplitter(MAX_BROKER_BYTES)
        self.reconnect()

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Read once and handle every packet that is complete."""
        sock = self._sock
        if not isinstance(sock, socket.socket):
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        try:
            length = self._receive(sock)
        except (BlockingIOError, ssl.SSLWantReadError):
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        except OSError:
            return self.drop()
        if not length:
            return self.drop()
        self._last_bytes_received = time.monotonic()
        on_publish_packet = self._on_publish_packet
        try:
            for first, body in self._splitter.feed(bytes(self._buffer[:length])):
                if first & 0xF0 == PUBLISH:
                    on_publish_packet(*parse_publish(first, body))
                elif (rc := self._handle_other(first, body)) > 0:
                    return self._loop_rc_handle(rc)
        except ProtocolError:
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_PROTOCOL)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _receive(self, sock: socket.socket) -> int:
        """The bytes that have come, at the beginning of the buffer: how many.

        TLS gives one record at a time, mostly one packet, and the loop knows nothing of what it holds: all is taken.
        """
        length = sock.recv_into(self._buffer)
        if isinstance(sock, ssl.SSLSocket) and length:
            with suppress(ssl.SSLWantReadError):
                while length <= RECEIVE_BYTES - RECORD_BYTES and (more := sock.recv_into(self._buffer[length:])):
                    length += more
        return length

    def drop(self) -> MQTTErrorCode:
        """Close the connection as lost."""
        return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)

    def send(self, packets: bytes) -> None:
        """Write whole packets, in this order, after what is queued. They are lost with the connection."""
        if packets and self._sock is not None:
            # The kind of packet matters to paho only for what it calls when a packet is written: a PUBACK, nothing.
            self._packet_queue(0x40, packets, 0, 1)
            self.loop_write()

    def excuse_silence(self) -> None:
        """Count the broker as alive: its answers wait in a socket that is not read for now."""
        self._ping_t = 0.0
        self._last_bytes_received = time.monotonic()

    def _create_socket(self) -> socket.socket:
        connected, self._connected_socket = self._connected_socket, None
        if connected is None:
            raise ConnectionError("expected a connected socket from adopt()")
        return connected

    def _handle_other(self, first: int, body: bytes) -> MQTTErrorCode:
        self._in_packet = {
            "command": first,
            "have_remaining": 1,
            "remaining_count": [],
            "remaining_mult": 1,
            "remaining_length": len(body),
            "packet": bytearray(body),
            "to_process": 0,
            "pos": 0,
        }
        return self._packet_handle()
