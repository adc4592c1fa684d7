from __future__ import annotations

import numpy as np
import pytest

from schemas.errors import BadTag, Malformed, NoKeyFrame
from schemas.frame import (
    Encoding,
    check_names_key,
    decode_key,
    decode_picture,
    encode_next_frame,
    is_key_frame,
    open_frame,
)
from schemas.identity import CameraId
from schemas.keys import KeyRing, Purpose
from schemas.pixels.masks import kept_mask
from schemas.pixels.packing import Picture
from schemas.pixels.temporal_encoder import TemporalEncoder
from schemas.pointillist_pb2 import RAW, TEMPORAL, Frame

CAMERA = CameraId("site/door")
KEYS = KeyRing(b"a fleet secret of thirty-two byte")
KEY = KEYS.current(CAMERA)
BOOT = 2**62 + 5
PICTURE: Picture = np.random.default_rng(5).integers(0, 256, (24, 40, 3), np.uint8)


def sent(pictures: list[Picture], share: float = 0.0, encoding: Encoding | None = None) -> list[bytes]:
    encoder, messages = TemporalEncoder(), []
    for seq, picture in enumerate(pictures):
        own = encoding or Encoding(16, share, TEMPORAL)
        payload, coded = encode_next_frame(KEY, BOOT, seq, 1000 + seq, picture, own, None, encoder)
        if coded is not None:
            encoder.published()
        messages.append(payload)
    return messages


def scene(count: int) -> list[Picture]:
    pictures = []
    for step in range(count):
        picture = PICTURE.copy()
        picture[:8, :8] = 60 * step
        pictures.append(picture)
    return pictures


def test_a_delta_decodes_from_its_key_frame_alone() -> None:
    pictures = scene(4)
    frames = [open_frame(CAMERA, payload, KEYS) for payload in sent(pictures)]
    assert [(is_key_frame(frame), frame.key_distance) for frame in frames] == [
        (True, 0),
        (False, 1),
        (False, 2),
        (False, 3),
    ]
    key = decode_key(KEY, frames[0])
    for frame, picture in [*zip(frames, pictures, strict=True)][:0:-1]:
        check_names_key(frame, frames[0])
        pixels, kept = decode_picture(KEY, frame, key)
        wanted = kept_mask(KEY, BOOT, 0, 24, 40, 16)
        wanted[:8, :8] = kept_mask(KEY, BOOT, frame.seq, 24, 40, 16)[:8, :8]
        np.testing.assert_array_equal(kept, wanted)
        np.testing.assert_array_equal(pixels, picture * kept[..., None])


def test_a_delta_without_the_key_frame_that_it_names_does_not_decode() -> None:
    frames = [open_frame(CAMERA, payload, KEYS) for payload in sent(scene(3))]
    other = decode_key(KEY, open_frame(CAMERA, sent(scene(1), encoding=Encoding(16, 0.0, TEMPORAL))[0], KEYS))
    with pytest.raises(NoKeyFrame, match=f"{BOOT:016x}/0"):
        decode_picture(KEY, frames[2])
    frames[2].key_distance = 1
    with pytest.raises(NoKeyFrame, match="/1"):
        decode_picture(KEY, frames[2], other)


def test_probes_are_sent_whole_and_are_nobodys_key_frame() -> None:
    frames = [open_frame(CAMERA, payload, KEYS) for payload in sent([PICTURE] * 30, share=0.2)]
    probes = [frame for frame in frames if frame.whole]
    assert len(probes) == 6
    for probe in probes:
        assert not is_key_frame(probe)
        pixels, kept = decode_picture(KEY, probe)
        np.testing.assert_array_equal(pixels, PICTURE)
        np.testing.assert_array_equal(kept, kept_mask(KEY, BOOT, probe.seq, 24, 40, 16))
    keys = {frame.seq for frame in frames if is_key_frame(frame)}
    assert len(keys) == 1
    assert {frame.seq - frame.key_distance for frame in frames if frame.key_distance} == keys


def test_a_camera_whose_frames_are_all_probes_sends_them_all() -> None:
    frames = [open_frame(CAMERA, payload, KEYS) for payload in sent([PICTURE] * 3, share=1.0)]
    assert all(frame.whole and not frame.key_distance for frame in frames)


@pytest.mark.parametrize(
    "change", [{"key_distance": 3}, {"whole": True}, {"profile": RAW}, {"profile": 9}, {"key_distance": 2**60}]
)
def test_an_impossible_key_frame_is_refused(change: dict[str, int]) -> None:
    frame = Frame.FromString(sent(scene(3))[2])
    frame.ClearField("tag")
    for name, value in change.items():
        setattr(frame, name, value)
    with pytest.raises(Malformed):
        open_frame(CAMERA, KEY.sign(Purpose.FRAME, frame.SerializeToString()), KEYS)


def test_the_tag_covers_which_key_frame_is_named() -> None:
    frame = Frame.FromString(sent(scene(3))[2])
    frame.key_distance = 1
    with pytest.raises(BadTag):
        open_frame(CAMERA, frame.SerializeToString(), KEYS)


@pytest.mark.parametrize(
    "change", [{"width": 48}, {"channels": 1}, {"dropped_per_block": 8}, {"key_generation": 1}, {"whole": True}]
)
def test_a_key_frame_that_does_not_fit_its_delta_is_refused(change: dict[str, int]) -> None:
    key_frame, delta = (Frame.FromString(payload) for payload in sent(scene(2)))
    check_names_key(delta, key_frame)
    for name, value in change.items():
        setattr(key_frame, name, value)
    with pytest.raises(Malformed, match="expected a key frame"):
        check_names_key(delta, key_frame)


def test_a_delta_is_no_key_frame() -> None:
    _, first, second = (Frame.FromString(payload) for payload in sent(scene(3)))
    with pytest.raises(Malformed, match="expected a key frame"):
        check_names_key(second, first)


def test_the_name_of_a_key_frame_costs_two_bytes() -> None:
    frames = [Frame.FromString(payload) for payload in sent([np.zeros((32, 32, 3), np.uint8)] * 100)]
    delta = frames[99]
    with_key = delta.ByteSize()
    assert delta.key_distance == 99
    delta.ClearField("key_distance")
    assert with_key - delta.ByteSize() == 2
    assert with_key - len(delta.pixels) <= 44
