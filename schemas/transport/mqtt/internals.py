"""Private members of paho 2.2: this module alone touches them.

`tests/schemas/test_mqtt_internals.py` fails against a real broker when a release of paho changes one.
"""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
import time
from typing import Final, Literal

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import VariableByteIntegers

PUBLISH_BYTES: Final = 10
"""Maximum bytes of a PUBLISH at QoS 1 without properties, besides its topic and payload (MQTT 5, section 3.3)."""
Result = MQTTErrorCode
"""The result of a step of the client: `MQTT_ERR_SUCCESS`, or the reason why the connection is gone."""


class MessageClient(Client):
    """paho's MQTT 5 client, which reads no properties of messages.

    Their publisher chooses them, and a broker forwards some at which paho ends the connection, such as a text with
    U+FEFF. A retained message would do so at each connection.
    """

    def __init__(self, client_id: str) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)

    def _handle_publish(self) -> MQTTErrorCode:
        body = self._in_packet["packet"]
        at = 2 + int.from_bytes(body[:2], "big") + (2 if self._in_packet["command"] & 6 else 0)
        length, digits = VariableByteIntegers.decode(body[at : at + 4])  # type: ignore[no-untyped-call]
        body[at : at + digits + length] = b"\0"
        return super()._handle_publish()


class SocketClient(MessageClient):
    """paho's MQTT 5 client on a socket that the caller has connected, with entrances for faster reading and writing.

    Everything here waits for nothing: an event loop drives the client.
    """

    def __init__(self, client_id: str) -> None:
        super().__init__(client_id)
        self._adopted: socket.socket | None = None
        self._written = 0
        """Bytes of this connection that the socket has accepted."""
        self._arrived = 0
        """Bytes that the socket's peer had acknowledged at the last `extend_ping`."""
        self._ping_end = 0
        """The end of the last PINGREQ in the stream of written and queued bytes."""

    def adopt(self, connected: socket.socket) -> MQTTErrorCode:
        """Begin an MQTT connection on a connected socket, where paho itself would connect and block."""
        self._adopted = connected
        self._written = self._arrived = self._ping_end = 0
        return self.reconnect()

    def lose(self, reason: MQTTErrorCode = MQTTErrorCode.MQTT_ERR_CONN_LOST) -> MQTTErrorCode:
        """Close the connection without DISCONNECT and report it as lost."""
        return self._loop_rc_handle(reason)

    def send(self, packets: bytes) -> None:
        """Write whole packets after the queued ones. They are lost with the connection."""
        if packets and self._sock is not None:
            # paho calls back when packets of some kinds are written. 0x40 is PUBACK, which has no callback.
            self._packet_queue(0x40, packets, 0, 1)

    def note_arrival(self) -> None:
        """Count bytes from the broker for the keep-alive; for a client that reads the socket itself."""
        self._last_bytes_received = time.monotonic()

    def excuse_silence(self) -> None:
        """Count the broker as alive: its answers wait in a socket that is not read for now."""
        self._ping_t = 0.0
        self._last_bytes_received = time.monotonic()

    def extend_ping(self) -> None:
        """Restart the time limit of a PINGREQ while the bytes before it move: the broker cannot answer it earlier.

        They move if the socket's peer acknowledges some, or if the broker sends. The peer may be a proxy, which
        acknowledges bytes that the broker does not have yet.
        """
        if not self._ping_t or self._sock is None:
            return
        self._ping_t = max(self._ping_t, self._last_bytes_received)
        if self._arrived >= self._ping_end:
            return
        arrived = self._written - _unacknowledged_bytes(self._sock.fileno())
        if arrived > self._arrived:
            self._arrived = arrived
            self._ping_t = self._last_bytes_received = time.monotonic()

    def handle_packet(self, first: int, body: bytes) -> MQTTErrorCode:
        """Handle one complete packet as paho does; `first` is its first byte, `body` follows the fixed header."""
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

    def handle_puback(self, body: bytearray) -> bool:
        """Handle a PUBACK instead of paho; false leaves it to paho, as here."""
        return False

    def largest_packet(self) -> int:
        """Return the bytes of the largest unacknowledged message with its headers; 0 without one."""
        with self._out_message_mutex:
            sizes = [len(each.payload) + len(each.topic.encode()) for each in self._out_messages.values()]
        return max(sizes) + PUBLISH_BYTES if sizes else 0

    def settle(self, mid: int) -> bool:
        """Remove an acknowledged message; false if no such message waits."""
        with self._out_message_mutex:
            known = self._out_messages.pop(mid, None)
        if known is None:
            return False
        self._inflight_messages -= 1
        return True

    def _sock_send(self, buf: bytes | bytearray) -> int:
        written = super()._sock_send(buf)
        self._written += written
        return written

    def _send_pingreq(self) -> MQTTErrorCode:
        result = super()._send_pingreq()
        self._ping_end = self._written + sum(packet["to_process"] for packet in self._out_packet)
        return result

    def _create_socket(self) -> socket.socket:
        adopted, self._adopted = self._adopted, None
        if adopted is None:
            raise ConnectionError("expected a connected socket from adopt()")
        return adopted

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        if cmd == "PUBACK" and self.handle_puback(self._in_packet["packet"]):
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        return super()._handle_pubackcomp(cmd)


def _unacknowledged_bytes(descriptor: int) -> int:
    """Return the bytes in a socket's send buffer that TCP has not acknowledged; 0 on other systems than Linux."""
    if sys.platform != "linux":
        return 0
    return int.from_bytes(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
