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
_FEW: Final = 12
"""Up to so many counters, Python's own integers are faster than numpy's call overhead."""


def philox(key: tuple[int, int], counters: int) -> NDArray[np.uint32]:
    """Random words (counters, 4) under the counters (0 .. counters - 1, 0, 0, 0) and a key of two 32-bit words."""
    if counters <= _FEW:
        return np.array([philox_words(key, (counter, 0, 0, 0)) for counter in range(counters)], dtype=np.uint32)
    c0 = np.arange(counters, dtype=np.uint64)
    c1, c2, c3 = (np.zeros(counters, dtype=np.uint64) for _ in range(3))
    m0, m1 = (np.uint64(m) for m in MULTIPLIERS)
    k0, k1 = key
    for _ in range(ROUNDS):
        p0 = c0 * m0
        p1 = c2 * m1
        c0 = (p1 >> _SHIFT) ^ c1 ^ np.uint64(k0)
        c2 = (p0 >> _SHIFT) ^ c3 ^ np.uint64(k1)
        c1 = p1 & _LOW
        c3 = p0 & _LOW
        k0 = (k0 + WEYL[0]) & 0xFFFFFFFF
        k1 = (k1 + WEYL[1]) & 0xFFFFFFFF
    return np.stack((c0, c1, c2, c3), axis=1).astype(np.uint32)


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
