"""Dropped pixels filled from kept neighbours, in integers: a picture that a codec can predict, of kept pixels alone.

A filled sample is the mean of four kept neighbours, rounded: (a + b + c + d + 2) >> 2. They are the four nearest kept
pixels within `REACH` rows and columns. At equal distance, the order is that of `_OFFSETS`. If there are fewer than
four, they are repeated in turn. If there is none, the last kept pixel before the hole in raster order serves, or the
first of the picture.

Chroma samples belong to 2×2 pixels. One is kept if any of its pixels is kept. From RGB, it is the mean chroma of these
kept pixels. A dropped one is filled from its neighbours, like luma.

The positions depend on the mask only, so a `Fill` serves all frames of a group.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.limits import BLOCK
from schemas.pixels.masks import Mask
from schemas.pixels.packing import Picture
from schemas.pixels.planes import TWELFTHS, Plane, Planes, Sums, chroma_of, luma_of

SOURCES: Final = 4
"""Kept samples of which a filled one is the mean."""
REACH: Final = BLOCK - 1
"""A whole block has a kept pixel within this distance of each of its pixels."""

Index = NDArray[np.intp]
Counts = NDArray[np.uint16]

_WEIGHTS: Final = np.array([0] + [TWELFTHS // count for count in range(1, SOURCES + 1)], dtype=np.uint16)
"""The weight of a sum, for each number of kept pixels of a chroma sample."""

_FEW: Final = 4
_STRIP_PIXELS: Final = 2**17
_OFFSETS: Final = sorted(
    ((down, right) for down in range(-REACH, REACH + 1) for right in range(-REACH, REACH + 1) if down or right),
    key=lambda offset: (offset[0] ** 2 + offset[1] ** 2, abs(offset[0]), offset),
)
"""(down, right) by rising distance."""
_NEAR: Final = 12
"""Neighbours whose kept ones a table ranks at once."""
_BITS: Final = np.arange(2**_NEAR)[:, None] >> np.arange(_NEAR) & 1
_COUNTS: Final = _BITS.sum(axis=1, dtype=np.intp)
"""The number of set bits of each code."""
_FIRST: Final = np.argsort(-_BITS, axis=1, kind="stable")[:, :SOURCES].T.copy()
"""(4, codes): the places of the first four set bits of each code."""


class Fill:
    """The fill of one mask `kept` (H, W), True at kept pixels.

    Raises ValueError for a mask that keeps nothing.
    """

    def __init__(self, kept: Mask) -> None:
        if not kept.any():
            raise ValueError(f"expected a mask that keeps a pixel, got {kept.shape} without any")
        self.kept = kept
        self._luma = _Holes(kept)
        self._count = _by_cell(kept.view(np.uint8))
        self._chroma = _Holes(self._count > 0)

    def planes(self, planes: Planes) -> Planes:
        """Return `planes` (H, W) with every dropped sample filled."""
        luma, blue, red, colour = planes
        if blue is None or red is None:
            return Planes(self._luma.filled(luma), None, None, colour)
        return Planes(self._luma.filled(luma), self._chroma.filled(blue), self._chroma.filled(red), colour)

    def picture(self, picture: Picture) -> Planes:
        """Return the filled planes of a `picture` (H, W, C), RGB or grey, uint8."""
        luma = self._luma.filled(luma_of(picture))
        if picture.shape[2] == 1:
            return Planes(luma, None, None)
        weights = _WEIGHTS[self._count]
        red, green, blue = (self._means(picture[..., channel], weights) for channel in range(3))
        first, second = chroma_of(red, green, blue)
        return Planes(luma, self._chroma.filled(first), self._chroma.filled(second))

    def _means(self, samples: Plane, weights: Counts) -> Sums:
        """Return the means of the kept samples of each cell, in units of 1 / `TWELFTHS`."""
        means = _by_cell(samples * self.kept)
        means *= weights
        return means.astype(np.int32)


class _Holes:
    """The holes of a plane. One thread at a time uses it."""

    def __init__(self, kept: Mask) -> None:
        holes = ~kept
        around = np.zeros_like(kept)
        around[1:-1, 1:-1] = kept[:-2, 1:-1] & kept[2:, 1:-1] & kept[1:-1, :-2] & kept[1:-1, 2:]
        around &= holes
        # For many of these, four shifted planes are added at once. For a few, gathering samples takes less time.
        self._isolated: Plane | None = None
        if _FEW * np.count_nonzero(around) > np.count_nonzero(holes):
            self._isolated = around.view(np.uint8) * np.uint8(255)
            holes &= ~around
            width = kept.shape[1]
            strip = max(1, _STRIP_PIXELS // width) * width
            self._wide = np.zeros(strip + 2 * width + 1, dtype=np.uint16)
            self._total = np.zeros(strip, dtype=np.uint16)
            self._means = np.zeros(strip, dtype=np.uint8)
        self._at = np.flatnonzero(holes)
        self._sources = _sources(kept, self._at)

    def filled(self, plane: Plane) -> Plane:
        """Return a plane (H, W) with its holes filled: a copy, or the plane itself if there are none."""
        if self._isolated is None and not len(self._at):
            return plane
        filled = np.array(plane, order="C")
        flat = filled.reshape(-1)
        if self._isolated is not None:
            self._fill_isolated(plane, self._isolated.reshape(-1), flat)
        if len(self._at):
            total = flat.take(self._sources[0], mode="clip").astype(np.uint16)
            for source in self._sources[1:]:
                total += flat.take(source, mode="clip")
            total += SOURCES // 2
            total >>= 2
            flat[self._at] = total.astype(np.uint8)
        return filled

    def _fill_isolated(self, plane: Plane, isolated: Plane, filled: Plane) -> None:
        """Enter the means of four neighbours into `filled` (H·W,), a copy of `plane`, at the isolated holes.

        A strip of rows fits into the cache.
        """
        height, width = plane.shape
        rows = max(1, _STRIP_PIXELS // width)
        for first in range(1, height - 1, rows):
            last = min(height - 1, first + rows)
            count = (last - first) * width
            # The strip's rows one after another, between a row above and one below: a neighbour is at a fixed distance.
            wide, total, means = self._wide[: count + 2 * width], self._total[:count], self._means[:count]
            wide.reshape(-1, width)[:] = plane[first - 1 : last + 1]
            np.add(wide[:count], wide[2 * width :], out=total)
            total += wide[width - 1 : count + width - 1]
            total += self._wide[width + 1 : count + width + 1]
            total += SOURCES // 2
            total >>= 2
            means[:] = total
            # A choice by bits: numpy's choice between two arrays branches at each sample.
            strip = filled[first * width : last * width]
            means ^= strip
            means &= isolated[first * width : last * width]
            strip ^= means


def _sources(kept: Mask, holes: Index) -> Index:
    """Return the flat positions (4, n) of the kept samples that fill the `holes` (n,) of `kept` (H, W).

    `_NEAR` neighbours of a hole are looked up at a time: a code has one bit for each, set if it is kept.
    """
    height, width = kept.shape
    padded = np.pad(kept.view(np.uint8), REACH)
    # The nearest neighbours suffice for most holes: whole planes take less time than samples of them.
    codes = np.zeros((height, width), dtype=np.uint16)
    for bit, (down, right) in enumerate(_OFFSETS[:_NEAR]):
        near = padded[REACH + down : REACH + down + height, REACH + right : REACH + right + width]
        codes |= np.left_shift(near, bit, dtype=np.uint16)
    code = codes.reshape(-1)[holes]
    moves = _moves(0, width)
    found = np.empty((SOURCES, len(holes)), dtype=np.intp)
    for rank in range(SOURCES):  # of fewer than four, the last ones are replaced below
        np.add(holes, moves[_FIRST[rank]].take(code), out=found[rank])
    count = np.minimum(_COUNTS.take(code), SOURCES)
    left = np.flatnonzero(count < SOURCES)
    flat, wide = padded.reshape(-1), padded.shape[1]
    for first in range(_NEAR, len(_OFFSETS), _NEAR):
        if not len(left):
            break
        at, had = holes[left], count[left]
        middle = at + at // width * 2 * REACH + REACH * wide + REACH
        code = np.zeros(len(left), dtype=np.uint16)
        for bit, (down, right) in enumerate(_OFFSETS[first : first + _NEAR]):
            code |= np.left_shift(flat.take(middle + (down * wide + right)), bit, dtype=np.uint16)
        moves, new = _moves(first, width), _COUNTS.take(code)
        for rank in range(SOURCES):
            here = np.flatnonzero((new > rank) & (had + rank < SOURCES))
            found[had[here] + rank, left[here]] = at[here] + moves[_FIRST[rank]].take(code[here])
        count[left] = np.minimum(had + new, SOURCES)
        left = left[had + new < SOURCES]
    alone = np.flatnonzero(count == 0)
    if len(alone):
        known = np.flatnonzero(kept)
        found[0, alone] = known[np.maximum(np.searchsorted(known, holes[alone]) - 1, 0)]
        count[alone] = 1
    few = np.flatnonzero(count < SOURCES)
    for each in range(1, SOURCES):
        again = few[count[few] <= each]
        found[each, again] = found[each % count[again], again]
    return found


def _moves(first: int, width: int) -> Index:
    """Return the distances (`_NEAR`,) in a flat plane of the offsets from `first` on; zeros after the last one."""
    moves = np.zeros(_NEAR, dtype=np.intp)
    offsets = _OFFSETS[first : first + _NEAR]
    moves[: len(offsets)] = [down * width + right for down, right in offsets]
    return moves


def _by_cell(samples: Plane) -> Counts:
    """Return the sums of `samples` (H, W) over the pixels of each chroma sample."""
    height, width = samples.shape
    even: Plane = samples
    if height % 2 or width % 2:
        even = np.pad(samples, ((0, height % 2), (0, width % 2)))
    rows = even[0::2].astype(np.uint16)
    rows += even[1::2]
    return rows[:, 0::2] + rows[:, 1::2]
