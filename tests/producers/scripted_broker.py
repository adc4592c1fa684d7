"""An MQTT 5 broker on loopback that records every packet and sends the packets that a test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from producers.bridge.mqtt.broker_log import LOG_FILTER
from producers.bridge.mqtt.packets import PUBLISH, PacketSplitter, parse_publish
from schemas.limits import MAX_BROKER_BYTES
from tests.waiting import until

CONNECT, SUBSCRIBE, UNSUBSCRIBE, PUBACK, PINGREQ, DISCONNECT = 0x10, 0x82, 0xA2, 0x40, 0xC0, 0xE0
SUCCESS, GRANTED_QOS_1, NOT_AUTHORIZED, TAKEN_OVER, PACKET_TOO_LARGE = 0x00, 0x01, 0x87, 0x8E, 0x95
LOG_SUBSCRIPTION = [(LOG_FILTER, 0)]


class Connect(NamedTuple):
    """The fields of a CONNECT packet."""

    client_id: str
    clean_start: bool
    keepalive_s: int
    properties: dict[str, object]


def variable_byte_integer(number: int) -> bytes:
    """Encode a number as MQTT's variable byte integer (MQTT 5, section 1.5.5)."""
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes((*digits, number))


def read_connect(body: bytes) -> Connect:
    """Parse the body of a CONNECT packet (MQTT 5, section 3.1)."""
    assert body[:7] == b"\x00\x04MQTT\x05"
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    _, size = properties.unpack(body[10:])  # type: ignore[no-untyped-call]
    name = body[12 + size :][: int.from_bytes(body[10 + size : 12 + size], "big")]
    return Connect(name.decode(), bool(body[7] & 2), int.from_bytes(body[8:10], "big"), properties.json())  # type: ignore[no-untyped-call]


def read_filters(body: bytes, *, options: bool) -> list[tuple[str, int]]:
    """Return the filters of a SUBSCRIBE packet with their QoS, or of an UNSUBSCRIBE packet with 0."""
    at, found = 3, []
    while at < len(body):
        end = at + 2 + int.from_bytes(body[at : at + 2], "big")
        found.append((body[at + 2 : end].decode(), body[end] if options else 0))
        at = end + options
    return found


class ScriptedBroker:
    """A broker for one connection at a time; `packets` holds the newest connection's packets with their first bytes."""

    def __init__(self) -> None:
        self.packets: list[tuple[int, bytes]] = []
        self.connects: list[Connect] = []
        self.connack = SUCCESS
        self.session_present = False
        self.maximum_packet_size: int | None = None
        self.suback = GRANTED_QOS_1
        self.log_suback = SUCCESS
        """The reason code that answers a subscription to the broker's log."""
        self.answers = True
        self.port = 0
        self._writer: asyncio.StreamWriter | None = None

    @property
    def subscribed(self) -> list[list[tuple[str, int]]]:
        """The filters of each SUBSCRIBE of the newest connection, except the subscription to the broker's log."""
        asked = [read_filters(body, options=True) for first, body in self.packets if first == SUBSCRIBE]
        return [filters for filters in asked if filters != LOG_SUBSCRIPTION]

    @property
    def unsubscribed(self) -> list[str]:
        """The filters of all UNSUBSCRIBE of the newest connection."""
        packets = [read_filters(body, options=False) for first, body in self.packets if first == UNSUBSCRIBE]
        return [name for filters in packets for name, _ in filters]

    @property
    def acknowledged(self) -> list[int]:
        """The packet ids of all PUBACKs, in order."""
        return [int.from_bytes(body[:2], "big") for first, body in self.packets if first == PUBACK]

    @property
    def published(self) -> list[tuple[str, bytes, bool]]:
        """Topic, payload and retain flag of every PUBLISH."""
        found = [parse_publish(first, body) for first, body in self.packets if first & 0xF0 == PUBLISH]
        return [(packet.topic.decode(), packet.payload, packet.retained) for packet in found]

    def count(self, kind: int) -> int:
        """Return how many packets of a kind the newest connection has sent."""
        return sum(first == kind for first, _ in self.packets)

    def publish(self, topic: str, payload: bytes, packet_id: int, *, retained: bool = False) -> None:
        """Send one PUBLISH, at QoS 1 if it has a packet id."""
        name = topic.encode()
        number = packet_id.to_bytes(2, "big") if packet_id else b""
        body = len(name).to_bytes(2, "big") + name + number + b"\0" + payload
        self.send(PUBLISH | (2 if packet_id else 0) | retained, body)

    def send(self, first: int, body: bytes) -> None:
        """Send one packet."""
        assert self._writer is not None
        self._writer.write(bytes([first]) + variable_byte_integer(len(body)) + body)

    def hang_up(self) -> None:
        """Close the connection without a DISCONNECT."""
        assert self._writer is not None
        self._writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self._writer, self.packets = writer, []
        splitter = PacketSplitter(MAX_BROKER_BYTES)
        try:
            with suppress(ConnectionError):
                while data := await reader.read(65536):
                    for first, body in splitter.feed(data):
                        self.packets.append((first, body))
                        if self.answers:
                            self._answer(first, body)
        finally:
            writer.close()

    def _answer(self, first: int, body: bytes) -> None:
        if first == CONNECT:
            self.connects.append(read_connect(body))
            limit = self.maximum_packet_size
            properties = b"" if limit is None else b"\x27" + limit.to_bytes(4, "big")
            self.send(0x20, bytes((self.session_present, self.connack, len(properties))) + properties)
        elif first == SUBSCRIBE:
            filters = read_filters(body, options=True)
            reason = self.log_suback if filters == LOG_SUBSCRIPTION else self.suback
            self.send(0x90, body[:2] + b"\0" + bytes([reason] * len(filters)))
        elif first == UNSUBSCRIBE:
            self.send(0xB0, body[:2] + b"\0" + bytes(len(read_filters(body, options=False))))
        elif first == PINGREQ:
            self.send(0xD0, b"")

    async def ready(self, filters: Iterable[str]) -> None:
        """Wait until the newest connection has subscribed to exactly these filters."""
        wanted = sorted(filters)
        await until(
            lambda: wanted == sorted(name for found in self.subscribed for name, _ in found), f"subscribed to {wanted}"
        )


@asynccontextmanager
async def scripted_broker() -> AsyncIterator[ScriptedBroker]:
    """Run a broker on a free port of loopback."""
    broker = ScriptedBroker()
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    broker.port = server.sockets[0].getsockname()[1]
    try:
        yield broker
    finally:
        server.close()
        if broker._writer is not None:
            broker._writer.close()
