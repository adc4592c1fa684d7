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

_LOW: Final = np.uint64(0xFFFFFFFF)
_SHIFT: Final = np.uint64(32)
_MULTIPLY: Final = np.array(MULTIPLIERS, dtype=np.uint64)[:, None]
_ADDED: Final = np.arange(ROUNDS, dtype=np.uint64)[:, None] * np.array(WEYL, dtype=np.uint64)
"""(ROUNDS, 2): what each round adds to the key."""
_FEW: Final = 12
"""Up to so many counters, Python's own integers are faster than numpy's call overhead."""


def philox(key: tuple[int, int], counters: int) -> NDArray[np.uint32]:
    """Random words (counters, 4) under the counters (0 .. counters - 1, 0, 0, 0) and a key of two 32-bit words."""
    if counters <= _FEW:
        return np.array([philox_words(key, (counter, 0, 0, 0)) for counter in range(counters)], dtype=np.uint32)
    # Two words of a counter share an array, so that a round takes half as many calls: (c0, c2), and (c1, c3).
    even = np.zeros((2, counters), dtype=np.uint64)
    odd, products = np.zeros_like(even), np.empty_like(even)
    even[0] = np.arange(counters)
    crossed = products[::-1]
    for round_key in (np.array(key, dtype=np.uint64) + _ADDED & _LOW)[:, :, None]:
        np.multiply(even, _MULTIPLY, out=products)
        np.right_shift(crossed, _SHIFT, out=even)
        even ^= odd
        even ^= round_key
        np.bitwise_and(crossed, _LOW, out=odd)
    words = np.empty((counters, 4), dtype=np.uint32)
    words[:, ::2], words[:, 1::2] = even.T, odd.T
    return words


def philox_words(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The four words of one counter."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0 = c0 * MULTIPLIERS[0]
        p1 = c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0 = (k0 + WEYL[0]) & 0xFFFFFFFF
        k1 = (k1 + WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3
