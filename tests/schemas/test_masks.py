"""Masks and their codebooks: counts, bits, spread, and keys."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.identity import CameraId
from schemas.keys.keys import CameraKey, derive_camera_key
from schemas.limits import BLOCK, MAX_DROPPED_PER_BLOCK
from schemas.pixels import masks, symmetries
from schemas.pixels.masks import (
    ROWS,
    Mask,
    block_patterns,
    codebook,
    kept_mask,
    row_indices,
    spread_patterns,
    uniform_codebook,
)

SECRET = b"a fleet secret of tests"
KEY = derive_camera_key(SECRET, CameraId("site/one"))
SIDES = st.integers(1, 70)
DROPPED = st.sampled_from((0, 1, 7, 16, 33, MAX_DROPPED_PER_BLOCK))
"""Few numbers, because making the patterns of each number takes long."""


def test_with_a_quarter_dropped_every_pattern_keeps_a_pixel_in_each_square_of_four() -> None:
    # A colour sample that four pixels share is therefore always sent, as the guarantees state.
    patterns = symmetries.turned(masks._pool(16)[:, None], np.arange(512))
    right, below = patterns >> np.uint64(1), patterns >> np.uint64(8)
    corners = np.uint64(sum(1 << (8 * y + x) for y in range(0, 8, 2) for x in range(0, 8, 2)))
    assert ((patterns | right | below | below >> np.uint64(1)) & corners == corners).all()


@settings(deadline=None, max_examples=40)
@given(SIDES, SIDES, DROPPED, st.integers(0, 2**53 - 1))
def test_exactly_the_chosen_number_of_pixels_is_dropped_in_every_complete_block(
    height: int, width: int, dropped: int, seq: int
) -> None:
    mask = kept_mask(KEY, 77, seq, height, width, dropped)
    assert mask.shape == (height, width)
    assert mask.dtype == np.bool_
    rows, columns = height // BLOCK, width // BLOCK
    blocks = mask[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    assert (BLOCK * BLOCK - blocks.sum(axis=(1, 3)) == dropped).all()


@settings(deadline=None, max_examples=30)
@given(SIDES, SIDES, DROPPED)
def test_the_mask_of_any_size_is_a_crop_of_the_padded_one(height: int, width: int, dropped: int) -> None:
    padded = kept_mask(KEY, 1, 2, -(-height // BLOCK) * BLOCK, -(-width // BLOCK) * BLOCK, dropped)
    np.testing.assert_array_equal(kept_mask(KEY, 1, 2, height, width, dropped), padded[:height, :width])


def test_frames_boots_cameras_and_key_generations_have_different_masks() -> None:
    other = derive_camera_key(SECRET, CameraId("site/two"))
    next_key = derive_camera_key(SECRET, CameraId("site/one"), 1)
    masks = [
        kept_mask(key, boot, seq, 32, 32, 16).tobytes()
        for key, boot, seq in [(KEY, 5, seq) for seq in range(50)]
        + [(KEY, boot, 0) for boot in range(6, 20)]
        + [(other, 5, 0), (next_key, 5, 0)]
    ]
    assert len(set(masks)) == len(masks)
    assert kept_mask(KEY, 5, 0, 32, 32, 16).tobytes() == masks[0]


@pytest.mark.parametrize(("dropped", "least", "most"), [(1, 5.9, 6), (10, 11.9, 12), (16, 11.9, 12)])
def test_a_block_costs_a_guesser_as_many_bits_as_the_guarantees_state(dropped: int, least: float, most: float) -> None:
    _, counts = np.unique(codebook(KEY.codebook_seed(dropped), dropped), return_counts=True)
    shares = counts / ROWS
    assert least <= -(shares * np.log2(shares)).sum() <= most


def test_a_leaked_mask_shows_rows_of_the_next_one_but_not_which() -> None:
    def blocks(seq: int) -> np.ndarray:
        mask = kept_mask(KEY, 1, seq, 512, 512, 16).reshape(64, BLOCK, 64, BLOCK).swapaxes(1, 2)
        return np.packbits(mask.reshape(-1, BLOCK * BLOCK), axis=1).view(np.uint64)[:, 0]

    leaked, following = blocks(1), blocks(2)
    assert np.isin(following, leaked).mean() > 0.5  # both masks choose among the rows of one codebook
    assert (leaked == following).mean() < 0.01


# A change of these bits makes every camera in the field unreadable: they are pinned.
@pytest.mark.parametrize(
    ("dropped", "digest"), [(0, "26931558320d3070"), (16, "b6e79fdfc136be47"), (45, "4fd6224689900f7d")]
)
def test_the_bits_of_a_mask_never_change(dropped: int, digest: str) -> None:
    key = CameraKey(CameraId("site/one"), 0, bytes(32), bytes(range(32)))
    bits = b"".join(
        np.packbits(kept_mask(key, 0x1234567890ABCDEF, seq, 100, 203, dropped)).tobytes() for seq in range(4)
    )
    assert hashlib.sha256(bits).hexdigest()[:16] == digest


def test_every_pixel_of_a_block_is_dropped_about_equally_often() -> None:
    rows = codebook(KEY.codebook_seed(16), 16)
    kept = np.unpackbits(rows.view(np.uint8), bitorder="little").reshape(ROWS, 64)
    # Binomial: standard deviation 0.0068 over 4,096 rows.
    np.testing.assert_allclose(kept.mean(axis=0), 0.75, atol=0.035)
    assert len(np.unique(rows)) > ROWS - 10


def unpacked(rows: np.ndarray) -> Mask:
    return np.unpackbits(rows.view(np.uint8), bitorder="little").reshape(ROWS, 8, 8).astype(np.bool_)


def adjacent_drops(kept: Mask) -> float:
    """Return the mean number of adjacent pairs of dropped pixels in a pattern, with cyclic edges."""
    pairs = [~kept & ~np.roll(kept, 1, axis) for axis in (1, 2)]
    return sum(float(pair.sum()) for pair in pairs) / len(kept)


@pytest.mark.parametrize(("dropped", "share"), [(6, 0.2), (16, 0.2), (32, 0.6)])
def test_dropped_pixels_of_spread_patterns_are_rarely_adjacent(dropped: int, share: float) -> None:
    spread, uniform = (unpacked(book((3, 4), dropped)) for book in (codebook, uniform_codebook))
    assert (uniform.sum(axis=(1, 2)) == 64 - dropped).all()
    assert adjacent_drops(spread) < share * adjacent_drops(uniform)


def test_spread_patterns_are_numerous() -> None:
    rows = np.concatenate([codebook((seed, 0), 16) for seed in range(64)])
    # 2^18 draws from 2^21 patterns: 16,000 or so are expected to be met twice.
    assert len(np.unique(rows)) > 0.92 * len(rows)


def test_cameras_that_start_concurrently_make_their_pool_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    barrier = Barrier(8)

    def make_slowly(dropped: int) -> Mask:
        made.append(dropped)
        time.sleep(0.05)
        return spread_patterns(dropped, tries=0)

    def one(number: int) -> bytes:
        barrier.wait()
        return codebook((number, 0), 5).tobytes()

    monkeypatch.setattr(masks, "spread_patterns", make_slowly)
    monkeypatch.setattr(masks, "_POOLS", {})
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(one, range(8)))) == 8
    assert made == [5]


def test_the_rows_of_consecutive_frames_are_independent() -> None:
    first = row_indices(KEY.frame_seed(1, 1), 4096)
    second = row_indices(KEY.frame_seed(1, 2), 4096)
    assert first.min() >= 0
    assert first.max() < ROWS
    assert np.count_nonzero(first == second) < 10


@pytest.mark.parametrize(("down", "across"), [(1, 1), (2, 4), (3, 5), (4, 9)])
def test_patterns_of_many_frames_equal_the_patterns_of_single_masks(down: int, across: int) -> None:
    keys = [KEY, derive_camera_key(SECRET, CameraId("site/two")), KEY]
    seeds = np.array([key.frame_seed(7, seq) for seq, key in enumerate(keys)], dtype=np.uint64)
    books = np.array([key.codebook_seed(16) for key in keys], dtype=np.uint64)
    found = block_patterns(seeds, books, down * across, 16)
    for seq, (key, words) in enumerate(zip(keys, found, strict=True)):
        bits = np.unpackbits(words.view(np.uint8), bitorder="little").reshape(down, across, BLOCK, BLOCK)
        expected = kept_mask(key, 7, seq, down * BLOCK, across * BLOCK, 16)
        np.testing.assert_array_equal(bits.swapaxes(1, 2).reshape(expected.shape), expected)


@pytest.mark.parametrize("dropped", [-1, MAX_DROPPED_PER_BLOCK + 1])
def test_a_number_of_dropped_pixels_out_of_range_is_rejected(dropped: int) -> None:
    with pytest.raises(ValueError, match=f"0 to {MAX_DROPPED_PER_BLOCK}"):
        codebook((1, 2), dropped)
    seeds = np.array([(1, 2)], dtype=np.uint64)
    with pytest.raises(ValueError, match=f"0 to {MAX_DROPPED_PER_BLOCK}"):
        block_patterns(seeds, seeds, 1, dropped)
