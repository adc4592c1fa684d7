"""Numbers of variable length, against the examples of MQTT and the encoder of protobuf."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.pointillist_pb2 import Range
from schemas.varint import varint


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (127, "7f"), (128, "8001"), (16_383, "ff7f"), (16_384, "808001"), (268_435_455, "ffffff7f")],
)
def test_limits_are_encoded_as_mqtt_prints_them(value: int, encoded: str) -> None:
    assert varint(value).hex() == encoded


@given(st.integers(1, 2**64 - 1))
def test_protobuf_reads_the_same_number(value: int) -> None:
    assert Range.FromString(b"\x08" + varint(value)).first == value
