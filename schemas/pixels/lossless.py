"""The profile `lossless`: kept pixels predicted from their neighbours, then entropy coded with Deflate.

Colour: RGB becomes G, R − G, B − G (mod 256), plane after plane.

Prediction: with F the frame whose holes are filled by the mean of the nearest kept pixels to their left and right, the
residual is `x − F(above)` (method `PLANE`) or `x` (method `LEFT`), less the same at the kept pixel before it in raster
order. The first is the plane through three neighbours, the second does better on noise. Both are undone a whole row at
a time, unlike a predictor that switches between neighbours.

Coding: a bitmap tells which pairs of residuals are not (0, 0), as a raw Deflate stream of runs. Those pairs follow in a
second stream of Huffman codes alone: on what prediction leaves over that is faster than a search for matches, and
smaller.
"""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import BadPixels
from schemas.pixels.masks import Mask

Bytes = NDArray[np.uint8]
Index = NDArray[np.intp]

STORED: Final = 0
LEFT: Final = 1
PLANE: Final = 2
_SAMPLE_ROWS: Final = 32
"""About so many rows decide between `LEFT` and `PLANE`."""
_STRIP_PIXELS: Final = 2**15
"""The encoder works on so many pixels at a time: what it makes of them stays in the cache."""


def encode(frame: Bytes, kept: Mask) -> bytes:
    """The kept pixels of `frame` (H, W, C) uint8: one byte for the method, then the data, at most one byte a sample."""
    method, residual = _residual(frame, kept)
    packed = _deflate(residual)
    if len(packed) >= residual.size:
        return bytes((STORED,)) + frame.reshape(-1, frame.shape[2])[np.flatnonzero(kept)].tobytes()
    return bytes((method,)) + packed


def decode(data: bytes, kept: Mask, channels: int) -> Bytes:
    """The kept pixels (n, C) in raster order; `BadPixels` for what `encode` cannot have written.

    Memory is bounded by what `kept` announces, whatever `data` would inflate to.
    """
    count = int(np.count_nonzero(kept))
    size = count * channels
    method, body = data[:1], data[1:]
    if method == bytes((STORED,)):
        if len(body) != size:
            raise BadPixels(f"expected {size} stored bytes, got {len(body)}")
        return np.frombuffer(body, dtype=np.uint8).reshape(count, channels)
    if method not in (bytes((LEFT,)), bytes((PLANE,))):
        raise BadPixels(f"expected method {STORED}, {LEFT} or {PLANE}, got {method!r}")
    planes = np.cumsum(_inflate(body, size).reshape(channels, count), axis=1, dtype=np.uint8)
    if method == bytes((PLANE,)):
        planes = _add_row_above(planes, kept)
    if channels == 3:
        planes[1:] += planes[0]
        planes = planes[[1, 0, 2]]
    return np.ascontiguousarray(planes.T)


def _residual(frame: Bytes, kept: Mask) -> tuple[int, Bytes]:
    """The method and its residuals (C, n), strip after strip."""
    height, width, channels = frame.shape
    method = _better_method(frame[..., channels // 2], kept)
    residual = np.empty((channels, int(np.count_nonzero(kept))), dtype=np.uint8)
    # The bytes of a colour share one word, so that a pixel is gathered at once.
    lanes = 4 if channels == 3 else 1
    rows = max(1, _STRIP_PIXELS // width)
    above = np.zeros((width, lanes), dtype=np.uint8)
    last = before = np.zeros(lanes, dtype=np.uint8)
    first = 0
    for top in range(0, height, rows):
        strip, part = frame[top : top + rows], kept[top : top + rows]
        # The strip lies between the row above it and the last kept pixel before it.
        samples = np.empty((width + part.size + 1, lanes), dtype=np.uint8)
        samples[:width], samples[-1] = above, last
        here = samples[width:-1]
        _separate_colours(strip.reshape(-1, channels), here)
        words = samples.view(f"u{lanes}")[width:, 0]
        at = np.flatnonzero(np.append(part, True))
        holes, left, right = _fillers(part, at[:-1])
        filled = _mean(words[at[left]].view(np.uint8), words[at[right]].view(np.uint8))
        words[holes] = filled.view(words.dtype)
        above, at = here[-width:], at[:-1]
        if not len(at):
            continue
        last = here[at[-1]]
        predicted = (here - samples[: -width - 1]).view(words.dtype)[:, 0] if method == PLANE else words
        values = predicted[at].view(np.uint8).reshape(-1, lanes)
        steps = np.empty_like(values)
        np.subtract(values[0], before, out=steps[0])
        np.subtract(values[1:], values[:-1], out=steps[1:])
        residual[:, first : first + len(at)] = steps.T[:channels]
        before = values[-1]
        first += len(at)
    return method, residual


def _separate_colours(pixels: Bytes, samples: Bytes) -> None:
    """Write G, R − G, B − G of RGB `pixels` (n, 3), or grey as it is, into `samples` (n, 4 or 1)."""
    if pixels.shape[1] == 1:
        samples[:] = pixels
        return
    samples[:, 0] = pixels[:, 1]
    np.subtract(pixels[:, 0], samples[:, 0], out=samples[:, 1])
    np.subtract(pixels[:, 2], samples[:, 0], out=samples[:, 2])
    samples[:, 3] = 0


def _better_method(plane: Bytes, kept: Mask) -> int:
    """`LEFT` or `PLANE`, whichever leaves less on a sample of pixels with kept neighbours to the left and above."""
    step = 1 + len(plane) // _SAMPLE_ROWS
    upper, lower = (np.ascontiguousarray(rows) for rows in (plane[:-1:step], plane[1::step]))
    known = kept[:-1:step] & kept[1::step]
    known = known[:, 1:] & known[:, :-1]
    left = lower[:, 1:] - lower[:, :-1]
    both = left - (upper[:, 1:] - upper[:, :-1])
    costs = [int((np.abs(steps.view(np.int8).astype(np.int16)) * known).sum()) for steps in (left, both)]
    return LEFT if costs[0] < costs[1] else PLANE


def _add_row_above(planes: Bytes, kept: Mask) -> Bytes:
    """x (C, n) from x − F(above)."""
    height, width = kept.shape
    channels, count = planes.shape
    at = np.flatnonzero(kept)
    bounds = np.searchsorted(at, np.arange(height + 1) * width)
    columns = at - np.repeat(np.arange(height) * width, np.diff(bounds))
    left = np.empty(height * width, dtype=np.intp)
    left[at] = np.arange(count)
    right = left.copy()
    holes, hole_left, hole_right = _fillers(kept, at)
    left[holes], right[holes] = hole_left, hole_right
    # One zero behind the pixels, which rank −1 reaches.
    values = np.zeros((channels, count + 1), dtype=np.uint8)
    values[:, :-1] = planes
    above = np.zeros((channels, width), dtype=np.uint8)
    for row, (first, end) in enumerate(pairwise(bounds.tolist())):
        values[:, first:end] += above.take(columns[first:end], axis=1)
        here = slice(row * width, (row + 1) * width)
        above = _mean(values.take(left[here], axis=1), values.take(right[here], axis=1))
    return values[:, :-1]


def _fillers(kept: Mask, at: Index) -> tuple[Index, Index, Index]:
    """The holes, and for each the ranks of its nearest kept pixels to the left and right in its row.

    `at` holds the kept positions. Where one side has none, the other serves; in an empty row the last kept pixel before
    it does, −1 when there is none.
    """
    height, width = kept.shape
    holes = np.flatnonzero(~kept)
    bounds = np.searchsorted(at, np.arange(height + 1) * width)
    holes_in_row = width - np.diff(bounds)
    start = np.repeat(bounds[:-1], holes_in_row)
    last = np.repeat(bounds[1:] - 1, holes_in_row)
    right = holes - np.arange(len(holes))
    left = right - 1
    np.maximum(left, start, out=left)
    np.minimum(left, last, out=left)
    np.minimum(right, last, out=right)
    return holes, left, right


def _mean(first: Bytes, second: Bytes) -> Bytes:
    """The mean, rounded down, without leaving 8 bits."""
    mean: Bytes = (first & second) + ((first ^ second) >> 1)
    return mean


_CROWDED: Final = 0.75
"""With more pairs than this share not (0, 0), all are sent: the bitmap would cost more than it saves."""


class _Streams(NamedTuple):
    bitmap_bytes: int
    pairs: int

    @classmethod
    def of(cls, size: int) -> _Streams:
        pairs = -(-size // 2)
        return cls(-(-pairs // 8), pairs)


def _deflate(residual: Bytes) -> bytes:
    streams = _Streams.of(residual.size)
    padded = np.zeros(2 * streams.pairs, dtype=np.uint8)
    padded[: residual.size] = residual.reshape(-1)
    pairs = padded.view(np.uint16)
    present = pairs != 0
    if np.count_nonzero(present) > _CROWDED * streams.pairs:
        present[:] = True
    bitmap = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_RLE)
    values = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    return b"".join(
        (
            bitmap.compress(np.packbits(present).data),
            bitmap.flush(),
            values.compress(pairs[np.flatnonzero(present)].data),
            values.flush(),
        )
    )


def _inflate(body: bytes, size: int) -> Bytes:
    streams = _Streams.of(size)
    bitmap, rest = _inflate_stream(body, streams.bitmap_bytes)
    bits = np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8))
    at = np.flatnonzero(bits)
    if len(at) and at[-1] >= streams.pairs:
        raise BadPixels(f"expected a bitmap of {streams.pairs} pairs, got one set beyond them")
    values, rest = _inflate_stream(rest, 2 * len(at))
    if rest:
        raise BadPixels(f"expected the data to end, got {len(rest)} bytes more")
    padded = np.zeros(streams.pairs, dtype=np.uint16)
    padded[at] = np.frombuffer(values, dtype=np.uint16)
    return padded.view(np.uint8)[:size]


def _inflate_stream(data: bytes, size: int) -> tuple[bytes, bytes]:
    """One raw Deflate stream of exactly `size` bytes, and what follows it."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        found = inflater.decompress(data, size + 1)
    except zlib.error as error:
        raise BadPixels(f"not a Deflate stream: {error}") from None
    if len(found) != size or not inflater.eof:
        raise BadPixels(
            f"expected {size} bytes after inflating, got {len(found)} and {'the' if inflater.eof else 'no'} end"
        )
    return found, inflater.unused_data
