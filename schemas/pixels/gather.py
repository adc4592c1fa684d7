"""The kept pixels of a frame, one after the other, as fast as numpy moves them.

Numpy gathers an item of 3 bytes by a call of `memmove` and one of 4 by a single instruction. So a colour pixel is taken
as the 4-byte word that begins with it, and each word is written 3 bytes behind the one before: the byte that it has too
many is overwritten by the next. A strip at a time, for what fits into the cache is neither paged in nor fetched again.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_STRIP_PIXELS: Final = 2**15


def gather(frame: Bytes, kept: NDArray[np.bool_]) -> Bytes:
    """The kept pixels (n·C,) of `frame` (H, W, C) uint8 in raster order, channels interleaved; `kept` is (H, W)."""
    channels = frame.shape[2]
    # Room for all pixels, which costs nothing until it is written to, and a byte for the last word.
    found = np.empty(channels * kept.size + 1, dtype=np.uint8)
    samples, keep = np.ascontiguousarray(frame).reshape(-1), np.ascontiguousarray(kept).reshape(-1)
    done = 0
    for first in range(0, keep.size, _STRIP_PIXELS):
        at = np.flatnonzero(keep[first : first + _STRIP_PIXELS])
        words = pixel_words(samples[channels * first :], min(_STRIP_PIXELS, keep.size - first), channels)
        part = np.ndarray(len(at), words.dtype, found, channels * done, (channels,))
        # Indices of `flatnonzero` need no check.
        part[:] = words.take(at, mode="clip")
        done += len(at)
    return found[: channels * done]


def pixel_words(samples: Bytes, count: int, channels: int) -> Bytes | NDArray[np.uint32]:
    """The first `count` pixels of contiguous `samples`, one item each: grey as it is, colour as `pixel, next byte`.

    What follows the last pixel of a frame is a zero.
    """
    if channels == 1:
        return samples[:count]
    if samples.size <= 3 * count:
        samples = np.append(samples[: 3 * count], np.uint8(0))
    return np.ndarray(count, "<u4", samples, 0, (3,)).copy()
