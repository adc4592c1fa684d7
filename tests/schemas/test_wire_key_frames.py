"""Frames that depend on a key frame, on the wire; `lossless` represents such a profile."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.errors import BadTagError, MalformedError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing, Purpose
from schemas.messages.frame import Encoding, check_key_frame, encode_frame, is_key_frame, open_frame
from schemas.pixels.packing import Picture
from schemas.pointillist_pb2 import LOSSLESS, RAW, Frame

CAMERA = CameraId("site/door")
KEYS = KeyRing(b"a fleet secret of thirty-two byte")
KEY = KEYS.current(CAMERA)
PICTURE: Picture = np.random.default_rng(5).integers(0, 256, (24, 40, 3), np.uint8)
keyed = pytest.mark.usefixtures("keyed_profile")


def message(seq: int, key_distance: int = 0, **changes: int) -> bytes:
    frame = Frame.FromString(encode_frame(KEY, 5, seq, 1000 + seq, PICTURE, Encoding(16, 0.0, LOSSLESS)))
    frame.ClearField("tag")
    frame.key_distance = key_distance
    for name, value in changes.items():
        setattr(frame, name, value)
    return KEY.sign(Purpose.FRAME, frame.SerializeToString())


@keyed
def test_a_frame_names_the_key_frame_that_it_depends_on() -> None:
    key_frame, frame = (open_frame(CAMERA, message(seq, seq), KEYS) for seq in (0, 2))
    assert (is_key_frame(key_frame), is_key_frame(frame)) == (True, False)
    assert frame.seq - frame.key_distance == key_frame.seq
    check_key_frame(frame, key_frame)


@keyed
def test_a_probe_is_no_key_frame() -> None:
    payload = encode_frame(KEY, 5, 0, 1000, PICTURE, Encoding(16, 1.0, LOSSLESS))
    assert not is_key_frame(open_frame(CAMERA, payload, KEYS))


@pytest.mark.parametrize("profile", [RAW, LOSSLESS])
def test_raw_and_lossless_frames_are_no_key_frames_and_depend_on_none(profile: int) -> None:
    assert not is_key_frame(open_frame(CAMERA, message(2, profile=profile), KEYS))
    with pytest.raises(MalformedError, match="expected key distance 0"):
        open_frame(CAMERA, message(2, 1, profile=profile), KEYS)


@keyed
@pytest.mark.parametrize(
    "change", [{"key_distance": 3}, {"whole": True}, {"profile": RAW}, {"profile": 9}, {"key_distance": 2**60}]
)
def test_an_impossible_key_frame_is_rejected(change: dict[str, int]) -> None:
    with pytest.raises(MalformedError):
        open_frame(CAMERA, message(2, **{"key_distance": 2, **change}), KEYS)


@keyed
def test_the_tag_covers_the_key_distance() -> None:
    frame = Frame.FromString(message(2, 2))
    frame.key_distance = 1
    with pytest.raises(BadTagError):
        open_frame(CAMERA, frame.SerializeToString(), KEYS)


@keyed
@pytest.mark.parametrize(
    "change",
    [
        {"width": 48},
        {"channels": 1},
        {"dropped_per_block": 8},
        {"key_generation": 1},
        {"whole": True},
        {"profile": RAW},
    ],
)
def test_a_key_frame_of_another_format_is_rejected(change: dict[str, int]) -> None:
    key_frame, frame = Frame.FromString(message(0)), Frame.FromString(message(1, 1))
    check_key_frame(frame, key_frame)
    for name, value in change.items():
        setattr(key_frame, name, value)
    with pytest.raises(MalformedError, match="expected a key frame"):
        check_key_frame(frame, key_frame)


@keyed
def test_a_frame_that_depends_on_a_key_frame_is_no_key_frame() -> None:
    first, second = Frame.FromString(message(1, 1)), Frame.FromString(message(2, 1))
    with pytest.raises(MalformedError, match="expected a key frame"):
        check_key_frame(second, first)
