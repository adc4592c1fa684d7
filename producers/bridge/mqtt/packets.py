"""Fast reading and writing of the bridge's MQTT 5 packets, PUBLISH and PUBACK (OASIS MQTT 5.0, sections 2.1, 3.3,
3.4)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from schemas.transport.mqtt.packets import packet, text

PUBLISH: Final = 0x30
_PUBACK = struct.Struct(">HH")
_PUBACK_HEAD: Final = 0x4002
"""PUBACK with two more bytes, the packet id: success needs no reason code."""


class ProtocolError(Exception):
    """The broker sent bytes that are not MQTT 5; the connection cannot continue."""


class Publish(NamedTuple):
    """The fields of a PUBLISH packet that the bridge needs. `packet_id` is 0 at QoS 0, which has no acknowledgement."""

    topic: bytes
    packet_id: int
    payload: bytes
    retained: bool
    """Whether the broker had stored it before this connection's subscription."""


class PacketSplitter:
    """Cuts the byte stream of one connection into packets; holds at most one incomplete packet."""

    def __init__(self, max_packet_bytes: int) -> None:
        self._max = max_packet_bytes
        self._parts: list[bytes] = []
        self._held = 0
        self._wanted = 0

    @property
    def is_empty(self) -> bool:
        """Whether no incomplete packet is buffered."""
        return not self._parts

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the packets that `data` completes, each as first byte and body. Raises `ProtocolError`."""
        if self._parts:
            # A packet of megabytes comes in many parts. They are joined once, when the last has arrived.
            self._parts.append(data)
            self._held += len(data)
            if self._held < self._wanted:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
        packets: list[tuple[int, bytes]] = []
        at, end = 0, len(data)
        wanted = 2
        while end - at >= 2:
            length = data[at + 1]
            body = at + 2
            if length > 127:
                length &= 127
                for shift in (7, 14, 21):
                    if body >= end:
                        length = -1
                        break
                    byte = data[body]
                    body += 1
                    length |= (byte & 127) << shift
                    if byte < 128:
                        break
                else:
                    raise ProtocolError("expected at most four bytes of remaining length")
                if length < 0:
                    wanted = end - at + 1
                    break
            if length > self._max:
                raise ProtocolError(f"expected packets of at most {self._max} bytes, got {length}")
            after = body + length
            if after > end:
                wanted = after - at
                break
            packets.append((data[at], data[body:after]))
            at = after
        if at < end:
            self._parts.append(data[at:])
            self._held = end - at
            self._wanted = wanted
        return packets


def parse_publish(first: int, body: bytes) -> Publish:
    """Read a PUBLISH packet; its properties are skipped. Raises `ProtocolError`."""
    try:
        at = 2 + (body[0] << 8 | body[1])
        topic = body[2:at]
        packet_id = 0
        if first & 6:
            packet_id = body[at] << 8 | body[at + 1]
            at += 2
        properties = body[at]
        at += 1
        if properties:
            if properties > 127:
                properties &= 127
                for shift in (7, 14, 21):
                    byte = body[at]
                    at += 1
                    properties |= (byte & 127) << shift
                    if byte < 128:
                        break
                else:
                    raise ProtocolError("expected at most four bytes of property length")
            at += properties
    except IndexError:
        raise ProtocolError("expected a PUBLISH packet, got one cut short") from None
    if at > len(body) or first & 6 == 6 or (first & 6 and not packet_id):
        raise ProtocolError("expected a PUBLISH packet, got one whose fields do not fit")
    return Publish(topic, packet_id, body[at:], bool(first & 1))


def pubacks(packet_ids: Iterable[int]) -> bytes:
    """Return PUBACK packets of success, in this order, as one buffer."""
    return b"".join(_PUBACK.pack(_PUBACK_HEAD, packet_id) for packet_id in packet_ids)


def publish_qos_0(topic: str, payload: bytes, *, retain: bool = False) -> bytes:
    """Return a PUBLISH packet at QoS 0 without properties."""
    return packet(PUBLISH | retain, text(topic.encode()) + b"\0" + payload)
