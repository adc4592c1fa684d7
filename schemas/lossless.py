"""The profile `lossless`: a predictor that knows the mask, then Deflate."""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.errors import BadPixels
from schemas.masks import Mask

_STORED: Final = 0
_LEFT: Final = 1


def encode(pixels: NDArray[np.uint8], kept: Mask) -> bytes:
    """Kept pixels (n, C) in raster order as bytes: one for the method, then the data."""
    residual = np.diff(pixels, axis=0, prepend=np.zeros((1, pixels.shape[1]), np.uint8))
    packed = zlib.compress(residual.T.tobytes(), 6)
    if len(packed) >= pixels.size:
        return bytes((_STORED,)) + pixels.tobytes()
    return bytes((_LEFT,)) + packed


def decode(data: bytes, kept: Mask, channels: int) -> NDArray[np.uint8]:
    """The inverse of `encode`; `BadPixels` for anything that `encode` cannot have written."""
    count = int(np.count_nonzero(kept))
    size = count * channels
    method, body = data[:1], data[1:]
    if method == bytes((_STORED,)):
        if len(body) != size:
            raise BadPixels(f"expected {size} stored bytes, got {len(body)}")
        return np.frombuffer(body, dtype=np.uint8).reshape(count, channels)
    if method != bytes((_LEFT,)):
        raise BadPixels(f"expected method {_STORED} or {_LEFT}, got {method!r}")
    inflater = zlib.decompressobj()
    try:
        residual = inflater.decompress(body, size + 1) if size else b""
    except zlib.error as error:
        raise BadPixels(f"not a Deflate stream: {error}") from None
    if len(residual) != size:
        raise BadPixels(f"expected {size} bytes after inflating, got {len(residual)} or more")
    planes = np.frombuffer(residual, dtype=np.uint8).reshape(channels, count)
    return np.cumsum(planes, axis=1, dtype=np.uint8).T
