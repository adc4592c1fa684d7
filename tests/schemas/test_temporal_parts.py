"""The parts of the profile `temporal` at their edges: windows, sums, bitmaps, and when a key frame is due."""

from __future__ import annotations

import tracemalloc
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import BadPixels
from schemas.frame import Encoding, encode_next_frame, parse_frame
from schemas.pixels import temporal
from schemas.pixels.masks import Mask, blocks_of
from schemas.pixels.packing import Picture
from schemas.pixels.temporal import block_sums, changed_blocks, pack_delta, squared_differences, unpack_delta
from schemas.pixels.temporal_encoder import KEY_AGE_MS, MOST_RMS, KeyCause, TemporalEncoder, differences_in, seen_frames
from schemas.pointillist_pb2 import TEMPORAL
from tests.schemas.test_temporal import KEY, Camera, key_picture, mask, noise


def test_the_decoder_looks_at_the_changed_blocks_and_at_no_more() -> None:
    changed = np.zeros((4, 6), dtype=np.bool_)
    assert temporal._window(changed) == (slice(0, 0), slice(0, 0))
    changed[1, 2] = changed[2, 4] = True
    assert temporal._window(changed) == (slice(8, 24), slice(16, 40))


def test_sums_over_blocks_are_those_of_the_pixels_whatever_the_size() -> None:
    values = np.random.default_rng(2).integers(0, 8100, (19, 21 * 3)).astype(np.uint16)
    sums = block_sums(values, 3)
    assert sums.dtype == np.uint32
    assert sums.shape == (3, 3)
    for row in range(3):
        for column in range(3):
            block = values[8 * row : 8 * row + 8, 24 * column : 24 * column + 24]
            assert sums[row, column] == block.astype(np.int64).sum()


def test_the_largest_differences_count_as_ninety_and_overflow_nothing() -> None:
    black, white = np.zeros((8, 24), np.uint8), np.full((8, 24), 255, np.uint8)
    assert squared_differences(black, white, 3).tolist() == [[192 * 90**2]]
    assert squared_differences(white, black, 3).tolist() == [[192 * 90**2]]
    assert squared_differences(white, white - np.uint8(89), 3).tolist() == [[192 * 89**2]]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from((1, 3)), st.integers(0, 99), st.integers(1, 5000))
def test_differences_are_those_of_each_blocks_pixels_and_of_some_blocks_those_of_all(
    height: int, width: int, channels: int, seed: int, strip: int
) -> None:
    first, second = (noise(height, width, channels, each).reshape(height, -1) for each in (seed, seed + 1))
    squares = np.minimum(np.abs(first.astype(np.int64) - second), 90) ** 2
    rows, columns = blocks_of(height, width)
    expected = [
        [squares[8 * r : 8 * r + 8, 8 * channels * c : 8 * channels * (c + 1)].sum() for c in range(columns)]
        for r in range(rows)
    ]
    with patch.object(temporal, "_STRIP_SAMPLES", strip):
        found = squared_differences(first, second, channels)
    assert found.tolist() == expected
    some = np.random.default_rng(seed).random((rows, columns)) < 0.5
    if some.any():
        one, other = (temporal.whole_blocks(each, channels) for each in (first, second))
        assert differences_in(some, one, other, channels).tolist() == found[some].tolist()


@pytest.mark.parametrize(("side", "bitmap_bytes"), [(128, 32), (136, None), (400, None)])
def test_a_delta_of_any_size_is_read_back_and_the_bitmap_of_a_small_one_is_plain(
    side: int, bitmap_bytes: int | None
) -> None:
    before, now = noise(side, side, 1, 1), noise(side, side, 1, 2)
    key, own = key_picture(before), mask(1, now)
    changed = np.zeros(blocks_of(side, side), dtype=np.bool_)
    nothing = pack_delta(now, own, changed)
    assert bitmap_bytes is None or len(nothing) == bitmap_bytes
    assert len(nothing) <= 32
    np.testing.assert_array_equal(unpack_delta(nothing, own, key)[0], key.pixels)
    changed[3, 4:9] = True
    data = pack_delta(now, own, changed)
    pixels, kept = unpack_delta(data, own, key)
    np.testing.assert_array_equal(changed_blocks(data, side, side), changed)
    np.testing.assert_array_equal(kept[24:32, 32:72], own[24:32, 32:72])
    np.testing.assert_array_equal(pixels[24:32, 32:72], (now * own[..., None])[24:32, 32:72])


def test_a_bitmap_that_would_inflate_to_megabytes_costs_none() -> None:
    key = key_picture(np.zeros((400, 400, 1), np.uint8))
    kept: Mask = mask(1, key.pixels)
    bomb = temporal._deflated(bytes(32 * 2**20))
    tracemalloc.start()
    with pytest.raises(BadPixels, match="bitmap"):
        unpack_delta(bomb, kept, key)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * 2**20


@pytest.mark.parametrize("rms", [0.0, 0.5, MOST_RMS])
def test_a_threshold_in_its_range_is_accepted(rms: float) -> None:
    assert TemporalEncoder(rms).key is None


def test_with_a_threshold_of_zero_what_has_changed_for_good_is_renewed_too() -> None:
    camera, empty = Camera(rms=0.0), noise(64, 64, seed=1)
    camera.send(empty)
    parked = empty.copy()
    parked[:16] = noise(16, 64, seed=2)
    causes = [camera.send(parked) for _ in range(12)]
    assert KeyCause.RENEWED in causes
    assert set(causes) == {None, KeyCause.RENEWED}


def test_half_of_the_blocks_may_change_before_it_is_a_cut() -> None:
    camera, picture = Camera(), np.full((16, 16, 3), 100, np.uint8)
    camera.send(picture)
    half, most = picture.copy(), picture.copy()
    half[:8] = most[:8] = most[8:, :8] = 200
    assert camera.send(half) is None
    assert (camera.coded.blocks_sent, camera.coded.blocks) == (2, 4)
    assert camera.send(most) is KeyCause.CUT


def test_a_key_frame_sends_all_blocks_of_its_frame() -> None:
    camera = Camera()
    assert camera.send(noise(16, 24)) is KeyCause.FIRST
    assert (camera.coded.blocks_sent, camera.coded.blocks, camera.coded.key_distance) == (6, 6, 0)


def test_a_key_frame_ages_from_when_it_was_captured() -> None:
    camera, picture = Camera(), noise(16, 16)
    start_ms = 10 * KEY_AGE_MS
    assert camera.send(picture, ms=start_ms) is KeyCause.FIRST
    assert camera.send(picture, ms=start_ms + KEY_AGE_MS) is None
    assert camera.send(picture, ms=start_ms + KEY_AGE_MS + 1) is KeyCause.AGED


def test_a_key_frame_that_is_called_for_while_a_delta_is_on_its_way_comes_after_it() -> None:
    encoder, picture = TemporalEncoder(), noise(16, 16)

    def cause(seq: int, renewed: KeyCause | None = None) -> KeyCause | None:
        coded = encoder.encode(picture, mask(seq, picture), 1, seq, seq, 16)
        if renewed is not None:
            encoder.renew(renewed)
        encoder.published()
        return coded.cause

    assert [cause(0), cause(1, KeyCause.ASKED), cause(2), cause(3)] == [KeyCause.FIRST, None, KeyCause.ASKED, None]


def test_nothing_was_published_before_the_first_frame() -> None:
    encoder, picture = TemporalEncoder(), noise(16, 16)
    encoder.published()
    assert encoder.key is None
    assert encoder.encode(picture, mask(0, picture), 1, 0, 0, 16).cause is KeyCause.FIRST


def test_what_a_receiver_sees_of_a_first_frame_is_all_blocks_changed() -> None:
    picture: Picture = noise(20, 28)
    (seen,) = seen_frames(KEY, [picture], 16)
    assert seen.changed.dtype == np.bool_
    assert seen.changed.tolist() == [[True] * 4] * 3


def test_frames_of_another_boot_or_drop_begin_with_a_key_frame_on_the_wire() -> None:
    encoder, picture = TemporalEncoder(), noise(16, 16)
    distances = []
    for seq, (boot, dropped) in enumerate([(1, 16), (1, 16), (2, 16), (2, 16), (2, 24), (2, 24)]):
        payload, coded = encode_next_frame(
            KEY, boot, seq, 1000, picture, Encoding(dropped, 0.0, TEMPORAL), None, encoder
        )
        encoder.published()
        assert coded is not None
        distances.append(parse_frame(payload).key_distance)
    assert distances == [0, 1, 0, 1, 0, 1]
