from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import BadPixels, ConfigError
from schemas.identity import CameraId
from schemas.keys import derive_camera_key
from schemas.pixels.masks import Mask, blocks_of, kept_mask
from schemas.pixels.packing import Picture
from schemas.pixels.temporal import Blocks, KeyPicture, changed_blocks, in_blocks, pack_delta, unpack_delta
from schemas.pixels.temporal_encoder import (
    KEY_AGE_MS,
    KEY_FRAMES,
    KeyCause,
    TemporalEncoder,
    seen_frames,
)

KEY = derive_camera_key(b"a fleet secret for temporal", CameraId("site/door"))
SIDES = st.integers(1, 40)


def noise(height: int, width: int, channels: int = 3, seed: int = 1) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def mask(seq: int, picture: Picture, dropped: int = 16) -> Mask:
    height, width, _ = picture.shape
    return kept_mask(KEY, 1, seq, height, width, dropped)


def key_picture(picture: Picture, seq: int = 0, dropped: int = 16) -> KeyPicture:
    kept = mask(seq, picture, dropped)
    return KeyPicture(1, seq, dropped, picture * kept[..., None], kept)


@st.composite
def deltas(draw: st.DrawFn) -> tuple[Picture, Picture, Blocks, int]:
    height, width, channels = draw(SIDES), draw(SIDES), draw(st.sampled_from((1, 3)))
    rows, columns = blocks_of(height, width)
    bits = draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
    changed = np.array(bits, dtype=np.bool_).reshape(rows, columns)
    seed = draw(st.integers(0, 99))
    dropped = draw(st.sampled_from((0, 16, 56)))
    return noise(height, width, channels, seed), noise(height, width, channels, seed + 1), changed, dropped


@settings(deadline=None)
@given(deltas())
def test_each_block_of_a_decoded_delta_has_the_pixels_of_exactly_one_frame(
    case: tuple[Picture, Picture, Blocks, int],
) -> None:
    before, now, changed, dropped = case
    key, own = key_picture(before, 0, dropped), mask(1, now, dropped)
    data = pack_delta(now, own, changed)
    pixels, kept = unpack_delta(data, own, key)
    area = in_blocks(changed, *now.shape[:2])
    np.testing.assert_array_equal(kept, np.where(area, own, key.kept))
    np.testing.assert_array_equal(pixels, np.where(area[..., None], now, before) * kept[..., None])
    np.testing.assert_array_equal(changed_blocks(data, *now.shape[:2]), changed)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=60), st.sampled_from(((16, 16), (200, 160))))
def test_a_delta_that_nobody_wrote_is_refused_or_gives_a_frame_of_the_key_frames_size(
    data: bytes, size: tuple[int, int]
) -> None:
    key = key_picture(np.zeros((*size, 3), np.uint8))
    try:
        pixels, kept = unpack_delta(data, mask(1, key.pixels), key)
    except BadPixels:
        return
    assert (pixels.shape, kept.shape) == (key.pixels.shape, key.kept.shape)


@pytest.mark.parametrize("size", [(24, 24), (400, 400)])
def test_a_delta_cut_short_lengthened_or_of_another_size_is_refused(size: tuple[int, int]) -> None:
    picture = noise(*size)
    own = mask(1, picture)
    changed = np.zeros(blocks_of(*size), dtype=np.bool_)
    changed[1, :2] = True
    data = pack_delta(picture, own, changed)
    key = key_picture(picture)
    for wrong in (data[:-1], data + b"x", data[:1], b"", pack_delta(picture, own, changed & False) + b"x"):
        with pytest.raises(BadPixels):
            unpack_delta(wrong, own, key)
    beyond = np.packbits(np.ones(9, dtype=np.bool_)).tobytes()[:-1] + b"\xff"
    if size == (24, 24):
        with pytest.raises(BadPixels, match="beyond"):
            unpack_delta(beyond, own, key)


def test_a_bitmap_that_inflates_to_more_than_its_frame_is_refused() -> None:
    picture = np.zeros((400, 400, 1), np.uint8)
    key = key_picture(picture)
    large = np.zeros((4000, 4000, 1), np.uint8)
    bomb = pack_delta(large, mask(1, large), np.zeros(blocks_of(4000, 4000), dtype=np.bool_))
    with pytest.raises(BadPixels, match="bitmap"):
        unpack_delta(bomb, mask(1, picture), key)


class Camera:
    """An encoder with the time and the numbers of a camera that sends a frame a second."""

    def __init__(self, rms: float = 5.0) -> None:
        self.encoder = TemporalEncoder(rms)
        self.seq = 0

    def send(self, picture: Picture, *, dropped: int = 16, ms: int | None = None, boot: int = 1) -> KeyCause | None:
        seq, self.seq = self.seq, self.seq + 1
        height, width, _ = picture.shape
        kept = kept_mask(KEY, boot, seq, height, width, dropped)
        coded = self.encoder.encode(picture, kept, boot, seq, seq * 1000 if ms is None else ms, dropped)
        self.encoder.published()
        self.coded = coded
        return coded.cause


def test_a_still_scene_costs_a_bitmap_a_frame() -> None:
    camera, picture = Camera(), noise(64, 64)
    assert camera.send(picture) is KeyCause.FIRST
    for distance in range(1, 20):
        assert camera.send(picture) is None
        assert (camera.coded.key_distance, camera.coded.blocks_sent) == (distance, 0)
        assert len(camera.coded.data) == 8


def test_only_the_blocks_that_changed_are_sent() -> None:
    camera, picture = Camera(), np.full((64, 64, 3), 100, np.uint8)
    camera.send(picture)
    moved = picture.copy()
    moved[10:20, 40:44] = 200
    assert camera.send(moved) is None
    assert camera.coded.blocks_sent == 2
    assert changed_blocks(camera.coded.data, 64, 64).nonzero()[0].tolist() == [1, 2]


def test_a_slow_drift_is_sent_once_it_differs_from_the_key_frame_whatever_the_frame_before_was() -> None:
    camera, picture = Camera(rms=5.0), np.full((32, 32, 3), 100, np.uint8)
    camera.send(picture)
    for step in range(1, 6):
        picture[:8, :8] = 100 + step
        camera.send(picture)
        assert camera.coded.blocks_sent == 0
    picture[:8, :8] = 106
    camera.send(picture)
    assert camera.coded.blocks_sent == 1


def test_a_scene_cut_is_sent_as_a_key_frame_and_goes_on_from_there() -> None:
    camera = Camera()
    camera.send(noise(64, 64, seed=1))
    assert camera.send(noise(64, 64, seed=2)) is KeyCause.CUT
    assert camera.send(noise(64, 64, seed=2)) is None
    assert (camera.coded.key_distance, camera.coded.blocks_sent) == (1, 0)


def test_what_has_changed_for_good_is_paid_for_about_as_often_as_a_key_frame_costs() -> None:
    camera, empty = Camera(), noise(64, 64, seed=1)
    camera.send(empty)
    key_bytes, paid = len(camera.coded.data), 0
    parked = empty.copy()
    parked[:16] = noise(16, 64, seed=2)
    assert camera.send(parked) is None  # it has just come: that would have been sent in any case
    while camera.send(parked) is None:
        paid += len(camera.coded.data)
    assert camera.coded.cause is KeyCause.RENEWED
    assert key_bytes < paid < 2 * key_bytes
    assert camera.send(parked) is None
    assert camera.coded.blocks_sent == 0


def test_what_moves_renews_no_key_frame() -> None:
    camera, empty = Camera(), noise(64, 64, seed=1)
    camera.send(empty)
    for step in range(60):
        crowd = empty.copy()
        crowd[:16] = noise(16, 64, seed=step)
        assert camera.send(crowd) is None


def test_key_frames_grow_old_by_number_and_by_time() -> None:
    camera, picture = Camera(), np.zeros((8, 8, 1), np.uint8)
    causes = [camera.send(picture) for _ in range(2 * KEY_FRAMES + 1)]
    assert [seq for seq, cause in enumerate(causes) if cause is not None] == [0, KEY_FRAMES, 2 * KEY_FRAMES]
    assert set(causes) == {None, KeyCause.FIRST, KeyCause.AGED}
    rare = Camera()
    assert [rare.send(picture, ms=ms) for ms in (0, KEY_AGE_MS, KEY_AGE_MS + 1)] == [
        KeyCause.FIRST,
        None,
        KeyCause.AGED,
    ]
    assert rare.send(picture, ms=0) is KeyCause.AGED  # the clock was set back


def test_another_size_drop_or_boot_begins_with_a_key_frame() -> None:
    camera, picture = Camera(), np.zeros((16, 16, 3), np.uint8)
    camera.send(picture)
    assert camera.send(np.zeros((16, 24, 3), np.uint8)) is KeyCause.SETTINGS
    assert camera.send(np.zeros((16, 24, 1), np.uint8)) is KeyCause.SETTINGS
    assert camera.send(np.zeros((16, 24, 1), np.uint8), dropped=32) is KeyCause.SETTINGS
    assert camera.send(np.zeros((16, 24, 1), np.uint8), dropped=32, boot=2) is KeyCause.SETTINGS
    assert camera.send(np.zeros((16, 24, 1), np.uint8), dropped=32, boot=2) is None


def test_a_key_frame_that_is_called_for_comes_next_and_once() -> None:
    camera, picture = Camera(), noise(16, 16)
    camera.send(picture)
    camera.encoder.renew(KeyCause.ASKED)
    camera.encoder.renew(KeyCause.SHED)
    assert [camera.send(picture) for _ in range(3)] == [KeyCause.ASKED, None, None]
    assert camera.encoder.key == (1, 1)


def test_a_frame_that_was_not_published_is_never_named() -> None:
    encoder, picture = TemporalEncoder(), noise(16, 16)
    for seq in (0, 0):
        assert encoder.encode(picture, mask(seq, picture), 1, seq, 0, 16).cause is KeyCause.FIRST
    keys = [encoder.key]
    encoder.published()
    assert [*keys, encoder.key] == [None, (1, 0)]
    cut = noise(16, 16, seed=9)
    assert encoder.encode(cut, mask(1, cut), 1, 1, 0, 16).cause is KeyCause.CUT
    assert encoder.encode(picture, mask(1, picture), 1, 1, 0, 16).key_distance == 1


@pytest.mark.parametrize("rms", [-1.0, 65.0, float("nan")])
def test_a_threshold_out_of_range_is_refused(rms: float) -> None:
    with pytest.raises(ConfigError, match="unchanged_rms"):
        TemporalEncoder(rms)


def test_what_a_receiver_sees_never_mixes_two_masks_in_a_block() -> None:
    background = noise(40, 52, seed=3)
    pictures = []
    for step in range(12):
        picture = background.copy()
        picture[8:24, 3 * step : 3 * step + 12] = noise(16, 12, seed=4)[:, : 52 - 3 * step]
        pictures.append(picture)
    for seq, (picture, seen) in enumerate(zip(pictures, seen_frames(KEY, pictures, 16), strict=True)):
        key_seq = seq - seen.coded.key_distance
        for row, column in itertools.product(*map(range, seen.changed.shape)):
            block = np.s_[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            source, mine = (seq, picture) if seen.changed[row, column] else (key_seq, pictures[key_seq])
            kept = mask(source, mine)[block]
            np.testing.assert_array_equal(seen.kept[block], kept)
            np.testing.assert_array_equal(seen.pixels[block], mine[block] * kept[..., None])
    assert 0 < seen.coded.blocks_sent < seen.coded.blocks
