"""Philox-4x32-10, a counter-based random generator (Salmon et al. 2011), vectorised in numpy.

The same bits come from every machine; `processors.stages.unpack` computes them on the device.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
WEYL: Final = (0x9E3779B9, 0xBB67AE85)
ROUNDS: Final = 10

_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLIERS = np.array(MULTIPLIERS, dtype=np.uint64)[:, None, None]
_WEYL = np.array(WEYL, dtype=np.uint64)[:, None]
_FEW: Final = 12
"""Number of counters up to which Python's own integers are faster than numpy's call overhead."""


def philox(key: tuple[int, int], counters: int) -> NDArray[np.uint32]:
    """Return words (counters, 4) under the counters (0 .. counters - 1, 0, 0, 0) and a key of two 32-bit words."""
    if counters <= _FEW:
        return np.array([philox_words(key, (counter, 0, 0, 0)) for counter in range(counters)], dtype=np.uint32)
    words: NDArray[np.uint32]
    (words,) = philox_each(np.array([key], dtype=np.uint64), np.arange(counters, dtype=np.uint64)[None])
    return words


def philox_each(keys: NDArray[np.uint64], counters: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Return random words (N, C, 4) under the counters (c, 0, 0, 0), c each of `counters` (N, C), and N `keys` (N, 2).

    Both multiplications of a round are one: the arrays are small, and a call of numpy costs more than its work.
    """
    first = np.stack((counters, np.zeros_like(counters)))
    second = np.zeros_like(first)
    product = np.empty_like(first)
    rounds = (keys.T[None] + _WEYL * np.arange(ROUNDS, dtype=np.uint64)[:, None, None] & _LOW)[..., None]
    for key in rounds:
        np.multiply(first, _MULTIPLIERS, out=product)
        np.right_shift(product[::-1], _SHIFT, out=first)
        first ^= second
        first ^= key
        np.bitwise_and(product[::-1], _LOW, out=second)
    return np.stack((first[0], second[0], first[1], second[1]), axis=-1).astype(np.uint32)


def philox_words(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Return the four words of one counter."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0 = c0 * MULTIPLIERS[0]
        p1 = c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0 = (k0 + WEYL[0]) & 0xFFFFFFFF
        k1 = (k1 + WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3
