"""Frames of the profile `video` on the wire: access units in Padmé sizes, groups and places."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadPixelsError, BadSizeError, BadTagError, MalformedError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.limits import MAX_FRAME_BYTES
from schemas.messages.access_unit import HEAD_BYTES, AccessUnit, Codec, open_unit, pack_unit, padded_length
from schemas.messages.frame import is_key_frame, mask_seq, open_frame, opened_pixels, parse_frame, seal_frame
from schemas.pixels.planes import Colour
from schemas.pointillist_pb2 import LOSSLESS, RAW, VIDEO, Frame

CAMERA = CameraId("site/door")
KEYS = KeyRing(b"a fleet secret of thirty-two byte")
KEY = KEYS.current(CAMERA)
UNIT = AccessUnit(Codec.H264, Colour.BT601_LIMITED, bytes(range(1, 200)))


def message(**changes: int) -> bytes:
    fields: dict[str, int] = {
        "boot_id": 5, "seq": 9, "captured_ms": 1009, "width": 768, "height": 432, "channels": 3,
        "dropped_per_block": 16, "profile": VIDEO, "key_distance": 4, "place": 3, **changes,
    }  # fmt: skip
    return seal_frame(KEY, Frame(**fields), pack_unit(UNIT))  # type: ignore[arg-type]  # numbers, by the schema


@given(st.binary(min_size=1, max_size=5000), st.sampled_from(Codec), st.sampled_from(Colour))
def test_a_unit_can_be_opened_again(data: bytes, codec: Codec, colour: Colour) -> None:
    found = open_unit(pack_unit(AccessUnit(codec, colour, data)))
    assert (found.codec, found.colour, bytes(found.data)) == (codec, colour, data)


@pytest.mark.parametrize(
    ("change", "found"), [(None, None), (0.0, 0.0), (0.0001, 1 / 256), (0.75, 0.75), (255.0, 255.0), (1e6, 65534 / 256)]
)
def test_a_change_can_be_read_again_and_the_smallest_one_differs_from_none(
    change: float | None, found: float | None
) -> None:
    assert open_unit(pack_unit(UNIT._replace(change=change))).change == found


@given(st.integers(1, 2**24))
def test_a_padded_length_is_at_most_12_percent_longer_and_needs_no_further_padding(length: int) -> None:
    padded = padded_length(length)
    assert length <= padded <= length * 1.12
    assert padded_length(padded) == padded


def test_lengths_up_to_four_kilobytes_have_few_padded_lengths() -> None:
    assert len({padded_length(length) for length in range(1, 4097)}) < 130


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        bytes(4),
        b"\0\1\0\0",
        pack_unit(UNIT)[:-1],
        pack_unit(UNIT) + b"\0",
        pack_unit(UNIT)[:-1] + b"\1",
        b"\7" + pack_unit(UNIT)[1:],
        b"\x40" + pack_unit(UNIT)[1:],
        b"\0\xff\xff\xff" + bytes(40),
    ],
)
def test_bytes_that_are_no_unit_are_rejected(packed: bytes) -> None:
    with pytest.raises(BadPixelsError, match="access unit"):
        open_unit(packed)


def test_a_unit_larger_than_a_complete_picture_cannot_be_packed() -> None:
    with pytest.raises(BadSizeError, match="Lower the quality"):
        pack_unit(UNIT._replace(data=bytes(14 * 2**20 + 1)))


def test_a_unit_larger_than_a_complete_picture_cannot_be_opened() -> None:
    length = MAX_FRAME_BYTES + 1
    packed = bytearray(padded_length(HEAD_BYTES + length))
    packed[3:HEAD_BYTES] = length.to_bytes(HEAD_BYTES - 3, "little")
    with pytest.raises(BadPixelsError, match="access unit"):
        open_unit(bytes(packed))


def test_a_frame_carries_its_group_and_its_place() -> None:
    frame = open_frame(CAMERA, message(), KEYS)
    assert (frame.seq - frame.key_distance, frame.place) == (5, 3)
    assert open_unit(opened_pixels(KEY, frame)).data == UNIT.data
    assert not is_key_frame(frame)
    assert is_key_frame(open_frame(CAMERA, message(key_distance=0, place=0), KEYS))
    assert not is_key_frame(open_frame(CAMERA, message(key_distance=0, place=0, whole=1), KEYS))


def test_frames_of_a_group_share_the_mask_of_its_key_frame_and_others_have_their_own() -> None:
    assert mask_seq(Frame(seq=9, key_distance=4, place=3, profile=VIDEO)) == 5
    assert mask_seq(Frame(seq=9, profile=VIDEO)) == 9
    assert mask_seq(Frame(seq=9, key_distance=4, place=3, profile=RAW)) == 9


def test_a_message_has_at_most_52_bytes_besides_its_pixels() -> None:
    assert len(message(captured_ms=1_800_000_000_000)) - len(pack_unit(UNIT)) <= 52


@pytest.mark.parametrize(
    "change",
    [
        {"place": 0},
        {"place": 5},
        {"key_distance": 0},
        {"whole": 1},
        {"key_distance": 10, "place": 10},
        {"profile": RAW, "key_distance": 0},
        {"profile": LOSSLESS, "key_distance": 0},
    ],
)
def test_an_impossible_place_is_rejected(change: dict[str, int]) -> None:
    with pytest.raises(MalformedError):
        parse_frame(message(**change))


def test_the_tag_covers_the_place() -> None:
    frame = Frame.FromString(message())
    frame.place = 2
    with pytest.raises(BadTagError):
        open_frame(CAMERA, frame.SerializeToString(), KEYS)


@pytest.mark.parametrize("size", [{"width": 63}, {"height": 32}])
def test_small_pictures_are_rejected(size: dict[str, int]) -> None:
    with pytest.raises(BadSizeError, match="profile raw or lossless"):
        parse_frame(message(**size))
