"""MQTT packets, compared with paho's reading of them at every cut of the stream and every limit of a length."""

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
    Publish,
    parse_publish,
    pubacks,
    publish_qos_0,
)
from tests.producers.scripted_broker import variable_byte_integer

MAX = 1 << 20
LENGTHS = {
    0: b"\x00",
    127: b"\x7f",
    128: b"\x80\x01",
    16_383: b"\xff\x7f",
    16_384: b"\x80\x80\x01",
    2_097_151: b"\xff\xff\x7f",
    2_097_152: b"\x80\x80\x80\x01",
}
"""Variable byte integers at their limits (OASIS MQTT 5.0, section 1.5.5)."""


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
def test_packets_are_complete_for_any_cuts_of_the_stream(packets: list[tuple[int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(bytes([first]) + variable_byte_integer(len(body)) + body for first, body in packets)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    splitter = PacketSplitter(MAX)
    found: list[tuple[int, bytes]] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += splitter.feed(stream[start:end])
    assert found == packets


@pytest.mark.parametrize("length", LENGTHS)
def test_a_packet_of_any_length_is_returned_with_its_last_byte(length: int) -> None:
    splitter = PacketSplitter(2**22)
    header, body = b"\x32" + LENGTHS[length], bytes(length)
    assert splitter.feed(b"\xd0\x00" + header[:-1]) == [
        (0xD0, b"")
    ]  # the stream is cut within the length, after another packet
    assert splitter.feed(header[-1:]) == ([] if length else [(0x32, b"")])
    if length:
        assert splitter.feed(body[:-1]) == []
        assert splitter.feed(body[-1:] + b"\xd0") == [(0x32, body)]
        assert splitter.feed(b"\x00") == [(0xD0, b"")]


@pytest.mark.parametrize("stream", [b"\x30\xe9\x07", b"\x30\xff\xff\xff\xff\x01", b"\x30\x80\x80\x80\x80\x01"])
def test_a_packet_above_the_announced_limit_raises_a_protocol_error(stream: bytes) -> None:
    assert PacketSplitter(1000).feed(b"\x30\xe8\x07" + bytes(1000)) == [(0x30, bytes(1000))]
    with pytest.raises(ProtocolError, match=r"at most (1000 bytes, got 1001|four bytes)"):
        PacketSplitter(1000).feed(stream)


@settings(max_examples=150, deadline=None)
@given(publishes())
def test_a_publish_packet_is_parsed_as_by_paho(packet: tuple[int, bytes]) -> None:
    first, body = packet
    by_paho = _packet.decode_publish(first, body, MQTTProtocolVersion.MQTTv5)
    assert parse_publish(first, body) == Publish(by_paho.topic, by_paho.mid, bytes(by_paho.payload), by_paho.retain)


@settings(max_examples=300, deadline=None)
@given(st.integers(0x30, 0x3F), st.binary(max_size=40))
def test_any_bytes_are_parsed_or_raise_a_protocol_error(first: int, body: bytes) -> None:
    try:
        found = parse_publish(first, body)
    except ProtocolError:
        return
    assert len(found.topic) + len(found.payload) < len(body)


@pytest.mark.parametrize("size", [1, *LENGTHS])
@pytest.mark.parametrize(("first", "packet_id"), [(0x31, 0), (0x32, 258), (0x34, 258), (0x3B, 258)])
def test_properties_of_any_length_and_other_flags_are_ignored(size: int, first: int, packet_id: int) -> None:
    topic, number = b"t" * 700, packet_id.to_bytes(2, "big") if packet_id else b""
    for payload in (b"", b"payload"):
        body = b"\x02\xbc" + topic + number + variable_byte_integer(size) + bytes(size) + payload
        assert parse_publish(first, body) == Publish(topic, packet_id, payload, bool(first & 1))


@pytest.mark.parametrize(
    ("first", "body"),
    [
        (0x30, b""),
        (0x30, b"\x00"),
        (0x30, b"\x00\x03a/"),
        (0x30, b"\x00\x03a/b"),
        (0x30, b"\x00\x03a/b\x01"),
        (0x30, b"\x00\x03a/b\x80\x80\x80\x80\x01"),
        (0x32, b"\x00\x03a/b\x01"),
        (0x32, b"\x00\x03a/b\x00\x00\x00payload"),
        (0x36, b"\x00\x03a/b\x00\x01\x00payload"),
    ],
)
def test_a_publish_packet_with_inconsistent_fields_is_rejected(first: int, body: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_publish(first, body)


@pytest.mark.parametrize("length", [length for length in LENGTHS if length])
@pytest.mark.parametrize("retain", [False, True])
def test_an_encoded_publish_packet_is_parsed_by_paho(length: int, retain: bool) -> None:
    payload = bytes(length - 6)
    ((first, body),) = PacketSplitter(2**22).feed(publish_qos_0("a/b", payload, retain=retain))
    by_paho = _packet.decode_publish(first, body, MQTTProtocolVersion.MQTTv5)
    assert (by_paho.topic, by_paho.qos, by_paho.retain, by_paho.payload, len(body)) == (
        b"a/b",
        0,
        retain,
        payload,
        length,
    )


def test_pubacks_report_success_in_the_given_order() -> None:
    packets = PacketSplitter(MAX).feed(pubacks([1, 65535, 258]))
    assert packets == [(0x40, b"\x00\x01"), (0x40, b"\xff\xff"), (0x40, b"\x01\x02")]
