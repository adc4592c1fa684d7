"""The framing of a source's picture: mirroring, rotation, privacy masks, then region, size and channels.

Without a size in the settings, the source's size is kept: large frames are never shrunk by default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from producers.sources.settings import SourceSettings
from schemas.errors import BadSizeError, SourceError
from schemas.messages.frame import check_frame_size
from schemas.pixels.packing import Picture

_TOLERANCE: Final = 1e-6
"""Rounding tolerance, in pixels, of a share that ends between two pixels."""


@dataclass(frozen=True, slots=True)
class Framing:
    """A function that maps the source's pictures to the pictures that are sent."""

    rotate: int = 0
    """Degrees, clockwise."""
    privacy: tuple[tuple[float, float, float, float], ...] = ()
    """x, y, width, height as shares."""
    region: tuple[int, int, int, int] | None = None
    """x, y, width, height."""
    size: tuple[int, int] | None = None
    """Width, height."""
    channels: int | None = None
    mirrored: bool = False
    """Whether left and right are exchanged before the rotation."""

    @classmethod
    def of(cls, settings: SourceSettings) -> Framing:
        """Return the framing of the settings."""
        return cls(settings.rotate, settings.privacy, settings.region, settings.size, settings.channels)

    @property
    def whole(self) -> bool:
        """Whether pictures are sent as the source gives them."""
        return self == Framing()

    def check(self, name: str, width: int, height: int) -> None:
        """Raise `SourceError` when the pictures of `name` do not have the region; a size of 0 is still unknown."""
        if self.region is not None and width and height:
            check_region(self.region, *((height, width) if self.rotate % 180 else (width, height)), name)

    def __call__(self, picture: Picture) -> Picture:
        """Return the framed `picture` (H, W, C) uint8; `SourceError` if its region or size is impossible."""
        picture = picture[:, ::-1] if self.mirrored else picture
        picture = blacken(turn(picture, self.rotate), self.privacy)
        picture = convert_channels(resize(crop(picture, self.region), self.size), self.channels)
        try:
            check_frame_size(*picture.shape)
        except BadSizeError as error:
            raise SourceError.of("picture", f"{error}; set a size or a region") from None
        return np.ascontiguousarray(picture)


def turn(picture: Picture, degrees: int) -> Picture:
    """Return a picture (H, W, C) turned clockwise by a multiple of 90 degrees."""
    return np.rot90(picture, -degrees // 90) if degrees else picture


def blacken(picture: Picture, rectangles: tuple[tuple[float, float, float, float], ...]) -> Picture:
    """Return a picture (H, W, C) with black rectangles: x, y, width, height as shares of the picture's sides.

    A pixel that a rectangle only touches is black as well, and so are up to three pixels next to it: video has a colour
    sample for 2×2 pixels, and FFmpeg interpolates those of some formats.
    """
    if not rectangles:
        return picture
    picture = picture.copy()
    rows, columns = picture.shape[:2]
    for x, y, width, height in rectangles:
        picture[_touched(y, height, rows), _touched(x, width, columns)] = 0
    return picture


def _touched(start: float, length: float, side: int) -> slice:
    """Return the pixels of a side that show colour of the touched ones, also if the picture was turned."""
    first, last = math.floor(start * side + _TOLERANCE), math.ceil((start + length) * side - _TOLERANCE)
    if first >= last:
        return slice(0, 0)
    if side % 2:  # the pairs begin at one end or, if the picture was turned, at the other
        return slice(max(0, first - 3), last + 3)
    return slice(max(0, first - first % 2 - 1), last + last % 2 + 1)


def crop(picture: Picture, region: tuple[int, int, int, int] | None) -> Picture:
    """Return the region (x, y, width, height) of a picture (H, W, C)."""
    if region is None:
        return picture
    x, y, width, height = region
    check_region(region, picture.shape[1], picture.shape[0])
    return picture[y : y + height, x : x + width]


def check_region(region: tuple[int, int, int, int], width: int, height: int, name: str = "picture") -> None:
    """Raise `SourceError` unless a region (x, y, width, height) lies inside a picture of this size."""
    x, y, wide, high = region
    if x + wide > width or y + high > height:
        raise SourceError.of(name, f"expected a region inside {width}x{height}, got {wide}x{high} at ({x}, {y})")


def resize(picture: Picture, size: tuple[int, int] | None) -> Picture:
    """Return a picture (H, W, C) in `size` (width, height): area means to shrink, bilinear interpolation to enlarge."""
    if size is None or (picture.shape[1], picture.shape[0]) == size:
        return picture
    shrinks = size[0] <= picture.shape[1] and size[1] <= picture.shape[0]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else np.ascontiguousarray(picture))
    return np.asarray(image.resize(size, method)).reshape(size[1], size[0], picture.shape[2])


def convert_channels(picture: Picture, channels: int | None) -> Picture:
    """Return grey (ITU-R BT.601 luma) from RGB, or RGB with three equal channels from grey."""
    if channels is None or channels == picture.shape[2]:
        return picture
    if channels == 1:
        return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).convert("L"))[..., None]
    return np.repeat(picture, 3, axis=2)
