"""Pictures as planes: luma, and chroma in half of the resolution, as video sources deliver and video codecs take them.

Sources name their colours by `Colour`. Pictures in RGB become planes by full-range BT.601, in integers:

    Y  = (77 R + 150 G + 29 B + 128) >> 8
    Cb = 128 + ((−43 R − 85 G + 128 B + 128) >> 8)
    Cr = 128 + ((128 R − 107 G − 21 B + 128) >> 8)

A chroma sample belongs to 2×2 pixels. If a side is odd, the last sample belongs to fewer.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]
Sums = NDArray[np.int32]
Tables = tuple[NDArray[np.int16], ...]

NEUTRAL: Final = 128
"""The chroma sample of grey."""
TWELFTHS: Final = 12
"""Units of a level in means of one to four samples: each of these numbers divides it."""
_LIMITED: Final = (16, 255 / 219, 255 / 224)
_FULL: Final = (0, 1.0, 1.0)
_BT601: Final = (0.299, 0.114)
_BT709: Final = (0.2126, 0.0722)
_BITS: Final = 5
"""Fractional bits of the way back to RGB: the sums fit 16 bits. The rounded result is within .6 of the exact one."""
_STRIP_ROWS: Final = 16
"""Rows of chroma."""


class Colour(IntEnum):
    """The relation of planes to RGB: the matrix of ITU-R BT.601 or BT.709, and the range of the samples."""

    BT601_LIMITED = 0
    BT601_FULL = 1
    BT709_LIMITED = 2
    BT709_FULL = 3


class Planes(NamedTuple):
    """A picture as planes."""

    luma: Plane
    """(H, W)."""
    blue: Plane | None
    """Cb, (⌈H/2⌉, ⌈W/2⌉); None in a grey picture."""
    red: Plane | None
    """Cr, as `blue`."""
    colour: Colour = Colour.BT601_FULL

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the picture."""
        height, width = self.luma.shape
        return height, width, 1 if self.blue is None else 3

    @property
    def nbytes(self) -> int:
        """Bytes of the picture as pixels: height × width × channels."""
        return self.luma.size * self.shape[2]


def chroma_shape(height: int, width: int) -> tuple[int, int]:
    """Return height and width of a chroma plane."""
    return -(-height // 2), -(-width // 2)


def luma_of(picture: Plane) -> Plane:
    """Return the luma (H, W) of a `picture` (H, W, 3) in RGB, or the samples of a grey one (H, W, 1)."""
    if picture.shape[2] == 1:
        return picture[..., 0]
    red, green, blue = (picture[..., channel].astype(np.uint16) for channel in range(3))
    red *= 77
    green *= 150
    blue *= 29
    red += green
    red += blue
    red += 128
    red >>= 8
    return red.astype(np.uint8)


def chroma_of(red: Sums, green: Sums, blue: Sums) -> tuple[Plane, Plane]:
    """Return Cb and Cr for red, green and blue in units of 1 / `TWELFTHS`."""
    half = 128 * TWELFTHS
    first = (128 * blue - 43 * red - 85 * green + half) // (256 * TWELFTHS)
    second = (128 * red - 107 * green - 21 * blue + half) // (256 * TWELFTHS)
    return _bytes(first + NEUTRAL), _bytes(second + NEUTRAL)


def rgb_weights(colour: Colour) -> tuple[int, float, float, float, float, float]:
    """Return the black level b and the weights (y, rv, gu, gv, bu) of the way back to RGB.

    With Y − b, Cb − 128 and Cr − 128 as y′, u and v: R = y·y′ + rv·v, G = y·y′ + gu·u + gv·v, B = y·y′ + bu·u.
    """
    kr, kb = _BT709 if colour in (Colour.BT709_LIMITED, Colour.BT709_FULL) else _BT601
    black, luma, chroma = _LIMITED if colour in (Colour.BT601_LIMITED, Colour.BT709_LIMITED) else _FULL
    kg = 1 - kr - kb
    rv, bu = 2 * (1 - kr) * chroma, 2 * (1 - kb) * chroma
    return black, luma, rv, -bu * kb / kg, -rv * kr / kg, bu


def to_picture(planes: Planes) -> Plane:
    """Return the picture (H, W, C) of planes: RGB, or grey without change. A chroma sample serves all of its pixels."""
    height, width, channels = planes.shape
    if channels == 1:
        return planes.luma[..., None]
    blue, red = planes.blue, planes.red
    assert blue is not None
    assert red is not None
    tables = _rgb_tables(planes.colour)
    luma = planes.luma
    if height % 2 or width % 2:
        luma = np.pad(luma, ((0, height % 2), (0, width % 2)), mode="edge")
    picture = np.empty((*luma.shape, 3), dtype=np.uint8)
    # A strip of rows fits into the cache.
    for first in range(0, len(blue), _STRIP_ROWS):
        rows = slice(first, first + _STRIP_ROWS)
        _convert(luma[2 * rows.start : 2 * rows.stop], blue[rows], red[rows], tables, picture[2 * rows.start :])
    return picture[:height, :width]


def _convert(luma: Plane, blue: Plane, red: Plane, tables: Tables, picture: Plane) -> None:
    """Write a strip of planes, with even sides, to the first rows of a `picture` (H, W, 3)."""
    rows, columns = blue.shape
    base = tables[0].take(luma).reshape(rows, 2, 2 * columns)
    shown = picture[: 2 * rows].reshape(rows, 2, 2 * columns, 3)
    _, rv, gu, gv, bu = tables
    for channel, part in enumerate((rv.take(red), gu.take(blue) + gv.take(red), bu.take(blue))):
        values = base + part.repeat(2, axis=1)[:, None]
        values >>= _BITS
        shown[..., channel] = values.clip(0, 255, out=values)


@lru_cache(len(Colour))
def _rgb_tables(colour: Colour) -> Tables:
    """Return the parts of R, G and B for each sample, times 2 to the power of `_BITS`: y, rv, gu, gv, bu."""
    black, *weights = rgb_weights(colour)
    samples = np.arange(256)
    y, rv, gu, gv, bu = (
        np.rint(weight * 2**_BITS * (samples - origin)).astype(np.int16)
        for weight, origin in zip(weights, (black, *[NEUTRAL] * 4), strict=True)
    )
    return y + np.int16(2 ** (_BITS - 1)), rv, gu, gv, bu


def _bytes(values: Sums) -> Plane:
    return values.clip(0, 255).astype(np.uint8)
