"""The profile `lossless`: kept pixels predicted from their neighbours, then entropy coded with Deflate.

Colour: RGB becomes G, R − G, B − G (mod 256), plane after plane.

Prediction: let F be the frame whose holes are filled by the mean of the nearest kept pixels to their left and right. A
pixel's value v is `x − F(above)` (method `PLANE`) or `x` (method `LEFT`). Its residual is v less the v of the previous
kept pixel in raster order. `PLANE` is the plane through three neighbours; `LEFT` does better on noise. Both are undone
a whole row at a time, unlike a predictor that switches between neighbours.

Coding: a bitmap marks the pairs of residuals that are not (0, 0), as a raw Deflate stream of runs. Those pairs follow
in a second stream of Huffman codes alone. On residuals that is faster than a search for matches, and smaller.
"""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import BadPixelsError
from schemas.pixels.gather import gather
from schemas.pixels.masks import Mask
from schemas.pixels.residuals import fillers, mean, residuals

Bytes = NDArray[np.uint8]

STORED: Final = 0
LEFT: Final = 1
PLANE: Final = 2


def encode(frame: Bytes, kept: Mask) -> bytes:
    """Encode the kept pixels of `frame` (H, W, C) uint8: one byte for the method, then at most one byte a sample."""
    residual, plane = residuals(frame, kept)
    packed = _deflate(residual)
    if len(packed) < int(np.count_nonzero(kept)) * frame.shape[2]:
        return bytes((PLANE if plane else LEFT,)) + packed
    return bytes((STORED,)) + gather(frame, kept).tobytes()


def decode(data: bytes | memoryview, kept: Mask, channels: int) -> Bytes:
    """Return the kept pixels (n, C) in raster order; `BadPixelsError` for data that `encode` cannot have written.

    Memory is bounded by the number of pixels in `kept`, whatever `data` would inflate to.
    """
    count = int(np.count_nonzero(kept))
    size = count * channels
    method, body = bytes(data[:1]), data[1:]
    if method == bytes((STORED,)):
        if len(body) != size:
            raise BadPixelsError(f"expected {size} stored bytes, got {len(body)}")
        return np.frombuffer(body, dtype=np.uint8).reshape(count, channels)
    if method not in (bytes((LEFT,)), bytes((PLANE,))):
        raise BadPixelsError(f"expected method {STORED}, {LEFT} or {PLANE}, got {method!r}")
    planes = np.cumsum(_inflate(body, size).reshape(channels, count), axis=1, dtype=np.uint8)
    if method == bytes((PLANE,)):
        planes = _add_row_above(planes, kept)
    if channels == 3:
        planes[1:] += planes[0]
        planes = planes[[1, 0, 2]]
    return np.ascontiguousarray(planes.T)


def _add_row_above(planes: Bytes, kept: Mask) -> Bytes:
    """Return x (C, n) from x − F(above)."""
    height, width = kept.shape
    channels, count = planes.shape
    at = np.flatnonzero(kept)
    bounds = np.searchsorted(at, np.arange(height + 1) * width)
    columns = at - np.repeat(np.arange(height) * width, np.diff(bounds))
    left = np.empty(height * width, dtype=np.intp)
    left[at] = np.arange(count)
    right = left.copy()
    holes = np.flatnonzero(~kept)
    row = np.repeat(np.arange(height), width - np.diff(bounds))
    left[holes], right[holes] = fillers(holes - np.arange(len(holes)), row, bounds)
    # One zero behind the pixels, for the rank −1.
    values = np.zeros((channels, count + 1), dtype=np.uint8)
    values[:, :-1] = planes
    above = np.zeros((channels, width), dtype=np.uint8)
    for row_, (first, end) in enumerate(pairwise(bounds.tolist())):
        values[:, first:end] += above.take(columns[first:end], axis=1)
        here = slice(row_ * width, (row_ + 1) * width)
        above = mean(values.take(left[here], axis=1), values.take(right[here], axis=1))
    return values[:, :-1]


_CROWDED: Final = 0.75
"""Share of pairs other than (0, 0) above which all pairs are sent: the bitmap would cost more than it saves."""


class _Streams(NamedTuple):
    bitmap_bytes: int
    pairs: int

    @classmethod
    def of(cls, size: int) -> _Streams:
        pairs = -(-size // 2)
        return cls(-(-pairs // 8), pairs)


def _deflate(residual: Bytes) -> bytes:
    """Compress an even number of residuals."""
    pairs = residual.view(np.uint16)
    present = pairs != 0
    if np.count_nonzero(present) > _CROWDED * len(pairs):
        present[:] = True
    else:
        pairs = pairs.take(np.flatnonzero(present), mode="clip")
    bitmap = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_RLE)
    values = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    return b"".join(
        (
            bitmap.compress(np.packbits(present).data),
            bitmap.flush(),
            values.compress(pairs.data),
            values.flush(),
        )
    )


def _inflate(body: bytes | memoryview, size: int) -> Bytes:
    streams = _Streams.of(size)
    bitmap, rest = _inflate_stream(body, streams.bitmap_bytes)
    bits = np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8))
    at = np.flatnonzero(bits)
    if len(at) and at[-1] >= streams.pairs:
        raise BadPixelsError(f"expected a bitmap of {streams.pairs} pairs, got one set beyond them")
    values, rest = _inflate_stream(rest, 2 * len(at))
    if rest:
        raise BadPixelsError(f"expected the data to end, got {len(rest)} bytes more")
    padded = np.zeros(streams.pairs, dtype=np.uint16)
    padded[at] = np.frombuffer(values, dtype=np.uint16)
    return padded.view(np.uint8)[:size]


def _inflate_stream(data: bytes | memoryview, size: int) -> tuple[bytes, bytes]:
    """Return one inflated raw Deflate stream of exactly `size` bytes, and the bytes after it."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        found = inflater.decompress(data, size + 1)
    except zlib.error as error:
        raise BadPixelsError(f"not a Deflate stream: {error}") from None
    if len(found) != size or not inflater.eof:
        raise BadPixelsError(
            f"expected {size} bytes after inflating, got {len(found)} and {'the' if inflater.eof else 'no'} end"
        )
    return found, inflater.unused_data
