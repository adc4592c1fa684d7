from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt import _packet
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from producers.bridge.mqtt.packets import (
    PUBLISH,
    PacketSplitter,
    ProtocolError,
    parse_publish,
    pubacks,
    publish_qos_0,
)

MAX = 1 << 20


def framed(first: int, body: bytes) -> bytes:
    """Fixed header and body, with the remaining length as MQTT 5, 1.5.5 has it."""
    digits = bytearray()
    left = len(body)
    while True:
        left, low = divmod(left, 128)
        digits.append(low | (128 if left else 0))
        if not left:
            return bytes([first]) + bytes(digits) + body


@st.composite
def publishes(draw: st.DrawFn) -> tuple[int, bytes]:
    qos = draw(st.sampled_from([0, 1]))
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if draw(st.booleans()):
        properties.UserProperty = ("name", "x" * draw(st.sampled_from([0, 5, 200])))
    topic = draw(st.text(min_size=1, max_size=20)).encode()
    body = len(topic).to_bytes(2, "big") + topic
    if qos:
        body += draw(st.integers(1, 65535)).to_bytes(2, "big")
    body += bytes(properties.pack())  # type: ignore[no-untyped-call]
    body += draw(st.one_of(st.binary(max_size=300), st.just(b"z" * 20_000)))
    return PUBLISH | qos << 1, body


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(publishes(), st.just((0xD0, b"")), st.just((0x90, b"\0\1\0\1")))), st.data())
def test_packets_come_out_whole_however_the_stream_is_cut(
    packets: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(framed(first, body) for first, body in packets)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    splitter = PacketSplitter(MAX)
    found: list[tuple[int, bytes]] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += splitter.feed(stream[start:end])
    assert found == packets


def test_packets_come_out_of_a_stream_that_comes_byte_by_byte() -> None:
    packets = [(0x32, bytes(200)), (0xD0, b""), (0x32, b"abc")]
    splitter = PacketSplitter(MAX)
    found = []
    for byte in b"".join(framed(*packet) for packet in packets):
        found += splitter.feed(bytes([byte]))
    assert found == packets


@settings(max_examples=150, deadline=None)
@given(publishes())
def test_a_publish_packet_is_read_as_paho_reads_it(packet: tuple[int, bytes]) -> None:
    first, body = packet
    theirs = _packet.decode_publish(first, body, MQTTProtocolVersion.MQTTv5)
    assert parse_publish(first, body) == (theirs.topic, theirs.mid, theirs.payload)


@settings(max_examples=300, deadline=None)
@given(st.integers(0x30, 0x3F), st.binary(max_size=40))
def test_any_bytes_are_a_publish_packet_or_a_protocol_error(first: int, body: bytes) -> None:
    try:
        found = parse_publish(first, body)
    except ProtocolError:
        return
    assert len(found.topic) + len(found.payload) < len(body)


@pytest.mark.parametrize("stream", [b"\x30\xff\xff\xff\xff\x01", b"\x30" + b"\x80\x80\x80\x01"])
def test_a_packet_longer_than_announced_as_most_ends_the_connection(stream: bytes) -> None:
    with pytest.raises(ProtocolError):
        PacketSplitter(MAX).feed(stream)


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1, max_size=50), st.binary(max_size=20_000))
def test_a_written_publish_is_read_back_by_paho(topic: str, payload: bytes) -> None:
    ((first, body),) = PacketSplitter(MAX).feed(publish_qos_0(topic, payload))
    theirs = _packet.decode_publish(first, body, MQTTProtocolVersion.MQTTv5)
    assert (theirs.topic, theirs.qos, theirs.retain, theirs.payload) == (topic.encode(), 0, False, payload)


def test_pubacks_are_packets_of_success_in_the_given_order() -> None:
    packets = PacketSplitter(MAX).feed(pubacks([1, 65535, 258]))
    assert packets == [(0x40, b"\x00\x01"), (0x40, b"\xff\xff"), (0x40, b"\x01\x02")]
