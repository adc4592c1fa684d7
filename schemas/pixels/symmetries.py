"""Symmetries of 8×8 block patterns, as 64-bit words: shifted, mirrored and transposed, in 512 ways.

Bit 8·y + x of a word is the pixel (y, x): a row of the block is a byte. Whole arrays of words are transformed at once,
each by its own symmetry, in about thirty integer operations (Warren, Hacker's Delight, 2nd edition, §7-1 and §7-3).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

SYMMETRIES: Final = 512

Words = NDArray[np.uint64]

_BYTES: Final = 0x0101010101010101
_EIGHT: Final = np.uint64(8)
# For each shift to the right by 0 … 7 columns: the bits that stay in their byte, and the bits that wrap around.
_STAYS: Final = np.array([_BYTES * (0xFF >> shift) for shift in range(8)], dtype=np.uint64)
_AROUND: Final = ~_STAYS
# Steps that exchange halves, quarters and single bits. The first transpose the block; the second reverse each byte.
_TRANSPOSE: Final = tuple(
    (np.uint64(shift), np.uint64(mask))
    for shift, mask in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0))
)
_MIRROR: Final = tuple(
    (np.uint64(shift), np.uint64(_BYTES * mask)) for shift, mask in ((1, 0x55), (2, 0x33), (4, 0x0F))
)


def turned(words: Words, number: NDArray[np.integer]) -> Words:
    """Return each of `words` under the symmetry 0 … 511 in the same entry of `number`.

    The output pixel (y, x) is an input pixel. Its position follows from (y, x) in three steps: mirror y unless bit 6 is
    set, and x unless bit 7 is; exchange y and x if bit 8 is set; go down by bits 3–5 and right by bits 0–2, around the
    block.
    """
    ways: Words = number.astype(np.uint64)
    down: Words = ways & np.uint64(0x38)
    right: Words = ways & np.uint64(7)
    found: Words = words >> down | words << (np.uint64(64) - down & np.uint64(63))
    found = found >> right & _STAYS[right] | found << (_EIGHT - right & np.uint64(7)) & _AROUND[right]
    found = np.where(ways & np.uint64(256), _transposed(found), found)
    found = np.where(ways & np.uint64(64), found, found.byteswap())
    return np.where(ways & np.uint64(128), found, _mirrored(found))


def _transposed(words: Words) -> Words:
    for shift, mask in _TRANSPOSE:
        exchanged = (words ^ words >> shift) & mask
        words = words ^ exchanged ^ exchanged << shift
    return words


def _mirrored(words: Words) -> Words:
    for shift, mask in _MIRROR:
        words = words >> shift & mask | (words & mask) << shift
    return words
