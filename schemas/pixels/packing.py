"""Kept pixels as bytes: the profiles `raw` and `lossless`.

`pack` and `unpack` are inverse on the kept pixels; dropped pixels become zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.errors import BadPixelsError, MalformedError
from schemas.pixels import lossless
from schemas.pixels.gather import gather
from schemas.pixels.masks import Mask
from schemas.pointillist_pb2 import LOSSLESS, RAW

Picture = NDArray[np.uint8]
"""(H, W, C) with 1 or 3 channels."""


def pack(frame: Picture, kept: Mask, profile: int) -> bytes:
    """Return the kept pixels of `frame` (H, W, C) uint8 in raster order, channels interleaved.

    `kept` is (H, W) bool. `lossless` is at most one byte longer than `raw`.
    """
    return bytes(packed(frame, kept, profile))


def packed(frame: Picture, kept: Mask, profile: int) -> bytes | memoryview:
    """Return the result of `pack` without a copy."""
    if profile == RAW:
        return gather(frame, kept).data
    if profile == LOSSLESS:
        return lossless.encode(frame, kept)
    raise MalformedError(f"expected profile RAW ({RAW}) or LOSSLESS ({LOSSLESS}), got {profile}")


def unpack_pixels(data: bytes | memoryview, kept: Mask, channels: int, profile: int) -> Picture:
    """Return the kept pixels (n, C) uint8 in raster order; memory is bounded by the number of pixels in `kept`."""
    count = int(np.count_nonzero(kept))
    if profile == RAW:
        if len(data) != count * channels:
            raise BadPixelsError(f"expected {count} pixels of {channels} bytes, got {len(data)} bytes")
        return np.frombuffer(data, dtype=np.uint8).reshape(count, channels)
    if profile == LOSSLESS:
        return lossless.decode(data, kept, channels)
    raise MalformedError(f"expected profile RAW ({RAW}) or LOSSLESS ({LOSSLESS}), got {profile}")


def unpack(data: bytes | memoryview, kept: Mask, channels: int, profile: int) -> Picture:
    """Return the frame (H, W, C) uint8 with zero at the dropped pixels."""
    frame = np.zeros((*kept.shape, channels), dtype=np.uint8)
    frame.reshape(-1, channels)[np.flatnonzero(kept)] = unpack_pixels(data, kept, channels, profile)
    return frame
