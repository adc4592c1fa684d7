"""The box of motion in a frame message."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import BadTagError, MalformedError, WireError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing, Purpose
from schemas.messages.frame import Encoding, encode_frame, frame_message, open_frame
from schemas.messages.moving import Box, check_moving, pack_moving, unpack_moving
from schemas.pixels.packing import Picture
from schemas.pointillist_pb2 import LOSSLESS, RAW, Frame

CAMERA = CameraId("site/camera")
KEYS = KeyRing(b"a fleet secret of tests")
KEY = KEYS.current(CAMERA)


def noise(height: int, width: int) -> Picture:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def boxes(height: int, width: int) -> st.SearchStrategy[Box]:
    def made(rows: tuple[int, int], columns: tuple[int, int]) -> Box:
        return Box(min(rows), max(rows) + 1, min(columns), max(columns) + 1)

    row, column = st.integers(0, height - 1), st.integers(0, width - 1)
    return st.builds(made, st.tuples(row, row), st.tuples(column, column))


@given(st.integers(1, 4000), st.integers(1, 4000), st.data())
def test_a_box_survives_packing_and_grows_by_less_than_one_part_at_each_side(
    height: int, width: int, data: st.DataObject
) -> None:
    box = data.draw(boxes(height, width))
    packed = pack_moving(box, height, width)
    check_moving(packed)
    found = unpack_moving(packed, height, width)
    assert found is not None
    assert 0 <= found.top <= box.top < box.bottom <= found.bottom <= height
    assert 0 <= found.left <= box.left < box.right <= found.right <= width
    assert max(box.top - found.top, found.bottom - box.bottom) <= height / 255 + 1
    assert max(box.left - found.left, found.right - box.right) <= width / 255 + 1


def test_no_box_is_unpacked_as_none() -> None:
    assert unpack_moving(pack_moving(None, 30, 40), 30, 40) is None


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 31), st.sampled_from((0, 0x20_10_20_10, 0xFF_00_FF_00)), st.sampled_from((RAW, LOSSLESS)))
def test_a_changed_box_is_rejected(bit: int, moving: int, profile: int) -> None:
    payload = encode_frame(KEY, 7, 3, 1000, noise(16, 24), Encoding(16, profile=profile), moving=moving)
    assert open_frame(CAMERA, payload, KEYS).moving == moving
    changed = Frame.FromString(payload)
    changed.moving ^= 1 << bit
    with pytest.raises(WireError):
        open_frame(CAMERA, frame_message(changed), KEYS)


def test_a_removed_or_repeated_box_is_rejected() -> None:
    payload = encode_frame(KEY, 7, 3, 1000, noise(16, 24), Encoding(16), moving=0x20_10_20_10)
    removed = Frame.FromString(payload)
    removed.ClearField("moving")
    second = Frame(moving=0x40_10_40_10).SerializeToString()
    for other in (frame_message(removed), second + payload, payload[:-9] + second + payload[-9:]):
        with pytest.raises(BadTagError):
            open_frame(CAMERA, other, KEYS)


@pytest.mark.parametrize("size", [(16, 24), (400, 400)])
def test_a_frame_with_a_box_is_serialised_to_the_same_bytes(size: tuple[int, int]) -> None:
    payload = encode_frame(KEY, 2**63 - 1, 2**53 - 1, 2**41, noise(*size), Encoding(16), moving=0xFF_00_FF_00)
    assert frame_message(open_frame(CAMERA, payload, KEYS)) == payload


@pytest.mark.parametrize("moving", [0x10_10_20_10, 0x20_10_10_20, 1])
def test_an_empty_box_is_malformed(moving: int) -> None:
    frame = Frame(boot_id=1, width=1, height=1, channels=1, pixels=b"x", moving=moving)
    with pytest.raises(MalformedError, match=r"moving: expected first < last"):
        open_frame(CAMERA, KEY.sign(Purpose.FRAME, frame.SerializeToString()), KEYS)
