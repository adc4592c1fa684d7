"""What part of a source's picture is sent, and in which size: region, then size, then channels.

Without a size the source's own is kept: a large frame is never shrunk unless its settings say so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from producers.sources.settings import SourceSettings
from schemas.errors import BadSize, SourceError
from schemas.frame import check_frame_size
from schemas.pixels.packing import Picture


@dataclass(frozen=True, slots=True)
class Framing:
    """A function from the source's pictures to those that are sent."""

    region: tuple[int, int, int, int] | None = None
    """x, y, width, height."""
    size: tuple[int, int] | None = None
    """Width, height."""
    channels: int | None = None

    @classmethod
    def of(cls, settings: SourceSettings) -> Framing:
        """The framing that the settings ask for."""
        return cls(settings.region, settings.size, settings.channels)

    def check(self, name: str, width: int, height: int) -> None:
        """Raise `SourceError` when the pictures of `name` do not have the region; a size of 0 is not known yet."""
        if self.region is not None and width and height:
            try:
                check_region(self.region, width, height)
            except SourceError as error:
                raise SourceError(f"{name}: {error}") from None

    def __call__(self, picture: Picture) -> Picture:
        """`picture` (H, W, C) uint8, contiguous; `SourceError` when it lacks the region or is too large to travel."""
        picture = convert_channels(resize(crop(picture, self.region), self.size), self.channels)
        try:
            check_frame_size(*picture.shape)
        except BadSize as error:
            raise SourceError(f"{error}; set a size or a region") from None
        return np.ascontiguousarray(picture)


def crop(picture: Picture, region: tuple[int, int, int, int] | None) -> Picture:
    """The region (x, y, width, height) of a picture (H, W, C)."""
    if region is None:
        return picture
    x, y, width, height = region
    check_region(region, picture.shape[1], picture.shape[0])
    return picture[y : y + height, x : x + width]


def check_region(region: tuple[int, int, int, int], width: int, height: int) -> None:
    """Raise `SourceError` unless a region (x, y, width, height) lies inside a picture of this size."""
    x, y, wide, high = region
    if x + wide > width or y + high > height:
        raise SourceError(f"expected a region inside {width}x{height}, got {wide}x{high} at ({x}, {y})")


def resize(picture: Picture, size: tuple[int, int] | None) -> Picture:
    """A picture (H, W, C) in `size` (width, height): the mean of the area of each pixel, or bilinear to enlarge."""
    if size is None or (picture.shape[1], picture.shape[0]) == size:
        return picture
    shrinks = size[0] <= picture.shape[1] and size[1] <= picture.shape[0]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else np.ascontiguousarray(picture))
    return np.asarray(image.resize(size, method)).reshape(size[1], size[0], picture.shape[2])


def convert_channels(picture: Picture, channels: int | None) -> Picture:
    """Grey (ITU-R BT.601 luma) from RGB, or RGB with three equal channels from grey."""
    if channels is None or channels == picture.shape[2]:
        return picture
    if channels == 1:
        return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).convert("L"))[..., None]
    return np.repeat(picture, 3, axis=2)
