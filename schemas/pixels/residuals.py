"""The prediction residuals of the kept pixels: the encoder's half of the profile `lossless`.

Holes are filled in strips of whole rows. F is the filled picture (`schemas.pixels.lossless`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.pixels.gather import pixel_words

Bytes = NDArray[np.uint8]
Words = NDArray[np.unsignedinteger]
"""One item a pixel: a byte of grey, or four bytes that hold a colour."""
Index = NDArray[np.intp]

_LANES: Final = {1: (0,), 4: (1, 0, 2)}
"""Bytes of a word that hold the planes G, R − G, B − G."""
_EVEN: Final = {1: 0xFE, 4: 0xFEFEFEFE}
"""Mask without the lowest bit of each byte, which a shift would move into the next."""
_WORDS: Final[dict[int, np.dtype[np.unsignedinteger]]] = {
    1: np.dtype(np.uint8),
    3: np.dtype(np.uint32).newbyteorder("<"),
}
_SAMPLE_ROWS: Final = 32
"""Approximate number of rows that decide the prediction of all pixels."""
_STRIP_PIXELS: Final = 2**15
"""Pixels that are filled at a time: their results stay in the cache."""


def residuals(frame: Bytes, kept: NDArray[np.bool_]) -> tuple[Bytes, bool]:
    """Return the residuals (C·n,) of the pixels of `frame` (H, W, C) that `kept` (H, W) keeps, plane after plane.

    The second value is true if the filled row above (F) was subtracted. F is subtracted if that makes the residuals
    smaller. A zero is appended if C·n is odd.
    """
    _, width, channels = frame.shape
    plane = _plane_is_better(frame[..., channels // 2], kept)
    found = _Planes(int(np.count_nonzero(kept)), channels)
    samples, keep = np.ascontiguousarray(frame).reshape(-1), np.ascontiguousarray(kept).reshape(-1)
    size = max(1, _STRIP_PIXELS // width) * width
    # Layout: the filled row above the strip, the strip, and the last kept pixel before it.
    room = np.zeros(width + size + 1, dtype=_WORDS[channels])
    last = np.zeros(1, dtype=room.dtype)
    before = last
    for first in range(0, keep.size, size):
        part = keep[first : first + size]
        end = width + len(part)
        at = np.flatnonzero(np.append(part, True))
        words = room[width:end]
        words[:] = _without_green(pixel_words(samples[channels * first :], len(part), channels))
        if plane:
            room[end] = last[0]
            _fill(room[width : end + 1], part, at, width)
            words = _bytes_less(words, room[: len(part)])
        at = at[:-1]
        values = np.concatenate((before, words.take(at, mode="clip")))
        before = values[-1:]
        found.add(_bytes_less(values[1:], values[:-1]))
        last = room[width + at[-1:]] if len(at) else last
        room[:width] = room[end - width : end]
    return found.samples, plane


class _Planes:
    """A buffer for the residuals of `count` pixels, plane after plane."""

    def __init__(self, count: int, channels: int) -> None:
        size = count * channels
        self.samples = np.zeros(size + size % 2, dtype=np.uint8)
        self._planes = self.samples[:size].reshape(channels, count)
        self._done = 0

    def add(self, words: Words) -> None:
        """Append the residuals of the next pixels."""
        lanes, end = words.view(np.uint8), self._done + len(words)
        for plane, lane in zip(self._planes, _LANES[words.itemsize], strict=True):
            plane[self._done : end] = lanes[lane :: words.itemsize]
        self._done = end


def mean(first: Words, second: Words) -> Words:
    """Return the mean of each byte, rounded down, without leaving 8 bits."""
    mean = first ^ second
    mean &= _EVEN[mean.itemsize]
    mean >>= 1
    mean += first & second
    return mean


def fillers(rank: Index, row: Index, bounds: Index) -> tuple[Index, Index]:
    """Return, for each hole, the ranks of its nearest kept pixels to the left and right in its row.

    `rank` is the number of kept pixels before the hole, and `row` its row. `bounds` gives the number of kept pixels
    before each row and before the end. If one side has none, the pixel of the other side is used. In an empty row, it
    is the last kept pixel before the row, or −1 if there is none.
    """
    last = bounds[row + 1] - 1
    left = np.minimum(np.maximum(rank - 1, bounds[row]), last)
    return left, np.minimum(rank, last)


def _without_green(words: Words) -> Words:
    """Return R − G, G, B − G and a meaningless byte, from R, G, B and such a byte; grey is unchanged."""
    if words.itemsize == 1:
        return words
    green: Words = np.right_shift(words, 8)
    green &= 0xFF
    green *= 0x10001
    return _bytes_less(words, green)


def _plane_is_better(plane: Bytes, kept: NDArray[np.bool_]) -> bool:
    """Return whether subtracting F makes residuals smaller, on a sample of pixels with kept neighbours to the left and
    above."""
    step = 1 + len(plane) // _SAMPLE_ROWS
    upper, lower = (np.ascontiguousarray(rows) for rows in (plane[:-1:step], plane[1::step]))
    known = kept[:-1:step] & kept[1::step]
    known = known[:, 1:] & known[:, :-1]
    left = lower[:, 1:] - lower[:, :-1]
    both = left - (upper[:, 1:] - upper[:, :-1])
    costs = [int((np.abs(steps.view(np.int8).astype(np.int16)) * known).sum()) for steps in (left, both)]
    return costs[1] <= costs[0]


def _fill(words: Words, kept: NDArray[np.bool_], at: Index, width: int) -> None:
    """Fill the holes of `kept` (rows · width,) whose row above has a kept pixel, or is not available.

    `words` has one item more than `kept`: the last kept pixel before them. `at` holds the kept positions, and the last
    one.
    """
    # Most holes have a kept pixel on either side.
    beside = np.zeros_like(words[:-1])
    beside[1:-1] = mean(words[:-3], words[2:-1])
    both = np.zeros_like(kept)
    np.logical_and(kept[:-2], kept[2:], out=both[1:-1])
    both.reshape(-1, width)[:, :: max(1, width - 1)] = False
    # The choice is made by bits, where 0 is kept: numpy's own choice between two arrays branches at each pixel.
    beside ^= words[:-1]
    beside &= kept.view(np.uint8).astype(words.dtype) - words.dtype.type(1)
    words[:-1] ^= beside
    settled = kept | both
    settled[:-width] |= ~kept[width:]
    holes = np.flatnonzero(~settled)
    if len(holes):
        bounds = np.searchsorted(at, np.arange(0, len(kept) + 1, width))
        left, right = fillers(np.searchsorted(at, holes), holes // width, bounds)
        words[holes] = mean(words[at[left]], words[at[right]])


def _bytes_less(first: Words, second: Words) -> Words:
    """Return the difference of each byte, modulo 256."""
    difference: Words = np.subtract(first.view(np.uint8), second.view(np.uint8)).view(first.dtype)
    return difference
