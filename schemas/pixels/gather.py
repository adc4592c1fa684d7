"""The kept pixels of a frame in sequence, as fast as numpy moves them.

Numpy gathers an item of 3 bytes by a call of `memmove`, and one of 4 bytes by a single instruction. A colour pixel is
therefore read as the 4-byte word that begins with it. Each word is written 3 bytes behind the one before, and the next
word overwrites its excess byte. The work goes strip by strip: a strip fits into the cache.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_STRIP_PIXELS: Final = 2**15


def gather(frame: Bytes, kept: NDArray[np.bool_]) -> Bytes:
    """Return the kept pixels (n·C,) of `frame` (H, W, C) uint8 in raster order, channels interleaved.

    `kept` is (H, W).
    """
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
    """Return the first `count` pixels of contiguous `samples`, one item each: grey unchanged, colour as `pixel, next
    byte`.

    The byte after the last pixel of a frame is zero.
    """
    if channels == 1:
        return samples[:count]
    if samples.size <= 3 * count:
        samples = np.append(samples[: 3 * count], np.uint8(0))
    return np.ndarray(count, "<u4", samples, 0, (3,)).copy()
