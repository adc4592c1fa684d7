"""Codebooks: only the required rows are made, with the same bits as complete ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.pixels import masks
from schemas.pixels.masks import FEW_ROWS, ROWS, CodebookCache, codebook, codebook_rows
from schemas.pixels.philox import philox_each, philox_words
from schemas.pixels.symmetries import SYMMETRIES, turned

WORD = st.integers(0, 2**32 - 1)


def turned_pixel_by_pixel(kept: np.ndarray, number: int) -> np.ndarray:
    """Return the block (8, 8) after a symmetry, computed pixel by pixel as an independent oracle."""
    found = np.roll(kept, (-(number >> 3 & 7), -(number & 7)), axis=(0, 1))
    found = found.T if number & 256 else found
    found = found if number & 64 else found[::-1]
    return found if number & 128 else found[:, ::-1]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**64 - 1))
def test_words_are_transformed_like_the_blocks_that_they_represent(word: int) -> None:
    words = np.full(SYMMETRIES, word, dtype=np.uint64)
    block = np.unpackbits(words[:1].view(np.uint8), bitorder="little").reshape(8, 8)
    found = np.unpackbits(turned(words, np.arange(SYMMETRIES)).view(np.uint8), bitorder="little").reshape(-1, 8, 8)
    expected = np.stack([turned_pixel_by_pixel(block, number) for number in range(SYMMETRIES)])
    np.testing.assert_array_equal(found, expected)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(WORD, WORD), min_size=1, max_size=5), st.lists(WORD, min_size=1, max_size=5))
def test_words_of_many_keys_and_counters_equal_single_ones(keys: list[tuple[int, int]], counters: list[int]) -> None:
    requested = np.array([counters] * len(keys), dtype=np.uint64)
    found = philox_each(np.array(keys, dtype=np.uint64), requested)
    assert found.tolist() == [[list(philox_words(key, (c, 0, 0, 0))) for c in counters] for key in keys]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(WORD, WORD), min_size=1, max_size=3), st.data(), st.sampled_from([0, 6, 16, 56]))
def test_single_rows_of_many_codebooks_equal_the_rows_of_complete_ones(
    seeds: list[tuple[int, int]], data: st.DataObject, dropped: int
) -> None:
    row = st.lists(st.integers(0, ROWS - 1), min_size=4, max_size=4)
    rows = np.array([data.draw(row) for _ in seeds])
    found = codebook_rows(np.array(seeds, dtype=np.uint64), rows, dropped)
    np.testing.assert_array_equal(
        found, [codebook(seed, dropped)[some] for seed, some in zip(seeds, rows, strict=True)]
    )


def test_more_cameras_than_cached_codebooks_make_no_codebook_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, rows = CodebookCache(3), np.arange(16)
    books = {seed: codebook((seed, 0), 16) for seed in range(10)}
    for seed in range(3):
        cache.rows((seed, 0), rows, 16)
    monkeypatch.setattr(masks, "codebook", None)
    for seed in [*range(10), *range(10)]:
        np.testing.assert_array_equal(cache.rows((seed, 0), rows, 16), books[seed][rows])
    assert len(cache) == 3


def test_a_large_frame_caches_its_codebook_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, rows = CodebookCache(2), np.arange(FEW_ROWS + 1)
    for seed in range(4):
        cache.rows((seed, 0), rows, 16)
    assert len(cache) == 2
    expected = codebook((3, 0), 16)[rows]
    monkeypatch.setattr(masks, "codebook", None)
    np.testing.assert_array_equal(cache.rows((3, 0), rows, 16), expected)
