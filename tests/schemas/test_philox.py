"""Philox random words, compared with published vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.pixels import philox as module
from schemas.pixels.philox import philox, philox_words

WORD = st.integers(0, 2**32 - 1)
ONES = 0xFFFFFFFF


# The published vectors of philox4x32-10 (Random123, kat_vectors).
@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_words_equal_the_published_vectors(
    counter: tuple[int, int, int, int], key: tuple[int, int], words: tuple[int, ...]
) -> None:
    assert philox_words(key, counter) == words


@settings(deadline=None, max_examples=50)
@given(WORD, WORD, st.integers(0, 40))
def test_words_of_many_counters_equal_single_ones(first: int, second: int, counters: int) -> None:
    words = philox((first, second), counters)
    assert words.dtype == np.uint32
    assert [tuple(row) for row in words.tolist()] == [
        philox_words((first, second), (n, 0, 0, 0)) for n in range(counters)
    ]


def test_the_vectorised_path_is_among_those_tested() -> None:
    assert module._FEW < 40


def test_no_counters_give_an_empty_table() -> None:
    assert philox((1, 2), 0).size == 0
