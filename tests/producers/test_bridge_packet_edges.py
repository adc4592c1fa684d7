"""MQTT packets at the edges of their lengths (OASIS MQTT 5.0, section 1.5.5)."""

from __future__ import annotations

import pytest

from producers.bridge.mqtt.packets import (
    PUBLISH,
    PacketSplitter,
    ProtocolError,
    Publish,
    parse_publish,
    publish_qos_0,
)

LENGTHS = {
    0: b"\x00",
    127: b"\x7f",
    128: b"\x80\x01",
    16_383: b"\xff\x7f",
    16_384: b"\x80\x80\x01",
    2_097_151: b"\xff\xff\x7f",
    2_097_152: b"\x80\x80\x80\x01",
}


@pytest.mark.parametrize("length", LENGTHS)
def test_a_packet_of_any_length_comes_out_whole_when_its_last_byte_is_there(length: int) -> None:
    splitter = PacketSplitter(2**22)
    header, body = b"\x32" + LENGTHS[length], bytes(length)
    for cut in range(len(header)):
        assert splitter.feed(header[cut : cut + 1]) == ([(0x32, b"")] if not length and cut else [])
    if length:
        assert splitter.feed(body[:-1]) == []
        assert splitter.feed(body[-1:] + b"\xd0") == [(0x32, body)]
        assert splitter.feed(b"\x00") == [(0xD0, b"")]


def test_a_packet_whose_length_was_cut_behind_another_comes_out_with_its_last_byte() -> None:
    splitter = PacketSplitter(2**22)
    assert splitter.feed(b"\x32\x64" + bytes(100) + b"\x32\x80") == [(0x32, bytes(100))]
    assert splitter.feed(b"\x01" + bytes(127)) == []
    assert splitter.feed(bytes(1)) == [(0x32, bytes(128))]


@pytest.mark.parametrize(("length", "fits"), [(1000, True), (1001, False)])
def test_a_packet_may_be_as_long_as_was_announced_and_no_longer(length: int, fits: bool) -> None:
    stream = b"\x30" + bytes((length & 127 | 128, length >> 7)) + bytes(length)
    if fits:
        assert PacketSplitter(1000).feed(stream) == [(0x30, bytes(length))]
    else:
        with pytest.raises(ProtocolError, match="at most 1000 bytes, got 1001"):
            PacketSplitter(1000).feed(stream)


def test_a_length_of_more_than_four_bytes_is_no_length() -> None:
    splitter = PacketSplitter(2**28)
    assert splitter.feed(b"\x30\x80\x80\x80") == []
    with pytest.raises(ProtocolError, match="remaining length"):
        splitter.feed(b"\x80\x01")
    assert PacketSplitter(2**28).feed(b"\x30\xff\xff\xff\x7f") == []


def body_of(properties: bytes, payload: bytes = b"payload", packet_id: bytes = b"") -> bytes:
    size = len(properties)
    digits = bytearray()
    while size > 127:
        digits.append(size & 127 | 128)
        size >>= 7
    return b"\x00\x03a/b" + packet_id + bytes((*digits, size)) + properties + payload


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 16_383, 16_384, 2_097_152])
def test_properties_of_any_length_are_skipped(size: int) -> None:
    assert parse_publish(0x30, body_of(bytes(size))) == Publish(b"a/b", 0, b"payload")
    assert parse_publish(0x32, body_of(bytes(size), b"", b"\x01\x02")) == Publish(b"a/b", 258, b"")


def test_a_topic_may_be_longer_than_255_bytes() -> None:
    topic = b"t" * 700
    assert parse_publish(0x30, b"\x02\xbc" + topic + b"\x00x") == Publish(topic, 0, b"x")


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
def test_a_publish_packet_whose_fields_do_not_fit_is_refused(first: int, body: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_publish(first, body)


@pytest.mark.parametrize(("first", "packet_id"), [(0x34, 1), (0x32, 1), (0x3B, 1), (0x31, 0)])
def test_the_other_flags_change_nothing(first: int, packet_id: int) -> None:
    number = b"\x00\x01" if packet_id else b""
    assert parse_publish(first, body_of(b"", packet_id=number)) == Publish(b"a/b", packet_id, b"payload")


@pytest.mark.parametrize("length", [length for length in LENGTHS if length])
@pytest.mark.parametrize("retain", [False, True])
def test_what_is_written_has_the_length_that_the_standard_says(length: int, retain: bool) -> None:
    payload = bytes(length - 6)
    assert publish_qos_0("a/b", payload, retain=retain) == (
        bytes((PUBLISH + retain,)) + LENGTHS[length] + b"\x00\x03a/b\x00" + payload
    )
