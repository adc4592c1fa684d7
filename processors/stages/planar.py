"""Decoded video at the network's scale: luma and chroma are resampled as planes, and the small picture becomes RGB.

The conversion to RGB and the resampling of `processors.stages.at_scale` are both linear. In either order they give the
same picture up to these differences, which tests bound:

- The other order rounds each pixel to 8 bits, and limits it to RGB's range. Here, only the result is limited.
- A chroma sample counts in full if any of its pixels was kept, and not by their number. A pixel of the result that no
  such sample reaches has the chroma of the nearest pixel with one.
- The weights are rounded (`processors.stages.scaler`), which moves a pixel by less than a grey level.
- At the edge of the result, the outermost samples of the picture have the weights outside as well, which moves a pixel
  by a grey level in the mean.

Values of dropped pixels are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from processors.stages.at_scale import LEAST_SHARE
from processors.stages.nearest import reconstruct_nearest
from processors.stages.packed import PackedFrames
from processors.stages.plate import TINY
from processors.stages.scaler import UNIT, Values, write_sums
from processors.stages.shapes import check_size
from schemas.errors import StageError
from schemas.pixels.masks import Mask
from schemas.pixels.planes import NEUTRAL, Colour, Plane, Planes, chroma_shape, rgb_weights, to_picture

Places = NDArray[np.intp]


class _Shares(NamedTuple):
    """The weights that kept samples have in the pixels of a resampled picture (height, width)."""

    luma: Tensor
    """Share of each pixel's luma weights, from 0 to 1."""
    scales: tuple[Values, ...]
    """The factors that turn weighted sums of luma, Cb and Cr into the means of the kept samples."""
    known: Tensor
    """True where the share is at least `LEAST_SHARE`."""
    complete: bool
    """Whether all pixels are known."""
    colourless: Places
    """Positions (N,) in the picture in raster order where no chroma was kept, or next to none."""
    nearest: Places
    """Positions (N,) of the nearest pixels with chroma."""

    @property
    def nbytes(self) -> int:
        """The memory in bytes."""
        scales = self.scales[0].nbytes + self.scales[1].nbytes
        return self.luma.nbytes + scales + self.known.nbytes + self.colourless.nbytes + self.nearest.nbytes


class PlaneMask:
    """A mask (H, W) of kept pixels as masks of planes, and its shares of resampled pictures: one for a group of
    pictures."""

    def __init__(self, kept: Mask) -> None:
        """Both sides are even: FFmpeg would shift the chroma of an odd one. Raises StageError otherwise."""
        if kept.shape[0] % 2 or kept.shape[1] % 2:
            raise StageError(f"mask: expected even sides, got {kept.shape[0]}×{kept.shape[1]}")
        rows = kept[0::2] | kept[1::2]
        cells = rows[:, 0::2] | rows[:, 1::2]
        self.kept = torch.from_numpy(np.ascontiguousarray(kept))
        self.count = np.count_nonzero(kept)
        """Number of kept pixels."""
        chroma = _selection(cells)
        self._selections = _selection(kept), chroma, chroma
        self._shares: dict[tuple[int, int], _Shares] = {}

    @property
    def nbytes(self) -> int:
        """The memory in bytes."""
        held = sum(each.nbytes for each in self._selections[:2] if each is not None)
        return self.kept.nbytes + held + sum(each.nbytes for each in self._shares.values())

    def shares(self, height: int, width: int) -> _Shares:
        """Return the shares of kept samples in pictures of `height` × `width`."""
        found = self._shares.get((height, width))
        if found is None:
            luma, cells = self.kept.shape, chroma_shape(*self.kept.shape)
            full = [np.full(shape, 255, dtype=np.uint8) for shape in (luma, cells, cells)]
            sums = np.empty((2, height, width), dtype=np.float32)
            write_sums(full, self._selections, [np.ones((height, width), dtype=np.float32)] * 2, sums)
            of_luma, of_chroma = 255 / np.maximum(sums, TINY)
            share = torch.from_numpy(sums[0] / (255 * UNIT))
            known = share >= LEAST_SHARE
            scales = of_luma, of_chroma, of_chroma
            places = _colourless(sums[1] >= 255 * UNIT * LEAST_SHARE)
            found = self._shares[height, width] = _Shares(share, scales, known, bool(known.all()), *places)
        return found

    def write_means(self, planes: Planes, picture: Tensor) -> None:
        """Write the kept samples' means to a `picture` (C, height, width), in [0, 1]."""
        channels, height, width = picture.shape
        samples: list[Plane] = [planes.luma]
        if channels > 1:
            assert planes.blue is not None
            assert planes.red is not None
            samples += [planes.blue, planes.red]
        means = np.empty((channels, height, width), dtype=np.float32)
        shares = self.shares(height, width)
        write_sums(samples, self._selections[:channels], shares.scales, means)
        for chroma in means[1:]:
            values = chroma.reshape(-1)
            values[shares.colourless] = values[shares.nearest]
        flat = picture.view(channels, -1)
        if channels == 1:
            torch.mul(torch.from_numpy(means).view(1, -1), 1 / 255, out=flat)
        else:
            weights, origin = _rgb_product(planes.colour)
            torch.addmm(origin, weights, torch.from_numpy(means).view(3, -1), out=flat)
        flat.clamp_(0, 1)


class PlanarFrames:
    """Decoded frames (B, C, H, W) of one shape on a CPU, at least one, with the interface of `PackedFrames`.

    `masks` mark the pixels that the drop kept, `sent` the pixels that were sent: for a probe, all.
    """

    def __init__(
        self, planes: Sequence[Planes], channels: int, masks: Sequence[PlaneMask], sent: Sequence[PlaneMask]
    ) -> None:
        self.shape = torch.Size((len(planes), channels, *planes[0].luma.shape))
        self._planes = planes
        self._masks = masks
        self._sent = sent

    def __len__(self) -> int:
        return len(self._planes)

    def __getitem__(self, places: Sequence[int]) -> PlanarFrames:
        """Return the frames at these positions, in this order."""
        if list(places) == list(range(len(self))):
            return self
        planes = [self._planes[i] for i in places]
        return PlanarFrames(planes, self.shape[1], [self._masks[i] for i in places], [self._sent[i] for i in places])

    def cut(self, place: int, rows: slice, columns: slice) -> PlanarFrames:
        """Return a part of the frame at `place`. Rows and columns begin at even places."""
        masks = [each[place].kept[rows, columns].numpy() for each in (self._masks, self._sent)]
        kept = PlaneMask(masks[0])
        sent = kept if self._sent[place] is self._masks[place] else PlaneMask(masks[1])
        return PlanarFrames([_cut(self._planes[place], rows, columns)], self.shape[1], [kept], [sent])

    @cached_property
    def kept(self) -> Tensor:
        """The masks (B, 1, H, W) of the drop."""
        if len(self) == 1:
            return self._masks[0].kept[None, None]
        return torch.stack([each.kept for each in self._masks])[:, None]

    def density(self, height: int, width: int) -> list[float]:
        """Return the kept pixels of each frame for each pixel of a picture of `height` × `width`."""
        return [each.count / (height * width) for each in self._masks]

    @cached_property
    def placed(self) -> Tensor:
        """The frames, float32 in [0, 1], zero at missing pixels."""
        found = torch.empty(self.shape)
        for frame, planes, sent in zip(found, self._planes, self._sent, strict=True):
            picture = planes.luma[..., None] if self.shape[1] == 1 else to_picture(planes)
            frame.copy_(torch.from_numpy(picture).permute(2, 0, 1)).div_(255).mul_(sent.kept)
        return found

    def at_scale(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the result of `processors.stages.at_scale.at_scale` for `placed` and `kept`, within a few levels.

        A frame's result does not depend on the rest of the batch. Raises StageError for a size without pixels.
        """
        pictures, shares = self._means(self._masks, height, width)
        known = torch.stack([each.known for each in shares])[:, None] if len(self) > 1 else shares[0].known[None, None]
        if not all(each.complete for each in shares):
            pictures.mul_(known)
        return pictures, known

    def as_sent(self, height: int, width: int) -> Tensor:
        """Return the result of `processors.stages.resample.resize` for `placed`, (B, C, height, width), within a few
        levels."""
        pictures, shares = self._means(self._sent, height, width)
        return pictures.mul_(torch.stack([each.luma for each in shares])[:, None])

    def _means(self, masks: Sequence[PlaneMask], height: int, width: int) -> tuple[Tensor, list[_Shares]]:
        check_size(height, width)
        pictures = torch.empty(len(self), self.shape[1], height, width)
        for picture, planes, mask in zip(pictures, self._planes, masks, strict=True):
            mask.write_means(planes, picture)
        return pictures, [mask.shares(height, width) for mask in masks]


Unplaced = PackedFrames | PlanarFrames
"""Frames in packed or planar form. They become a tensor of pixels on request, or are resampled directly."""


def _cut(planes: Planes, rows: slice, columns: slice) -> Planes:
    half = slice(rows.start // 2, -(-rows.stop // 2)), slice(columns.start // 2, -(-columns.stop // 2))
    chroma = [None if each is None else np.ascontiguousarray(each[half]) for each in (planes.blue, planes.red)]
    return planes._replace(luma=np.ascontiguousarray(planes.luma[rows, columns]), blue=chroma[0], red=chroma[1])


@lru_cache(16)
@torch.inference_mode(False)
def whole_mask(height: int, width: int) -> PlaneMask:
    """Return the mask of a picture of which every pixel was sent."""
    return PlaneMask(np.ones((height, width), dtype=np.bool_))


def _selection(kept: Mask) -> Plane | None:
    """Return 255 at kept samples and 0 at others; None if all are kept."""
    return None if kept.all() else kept.view(np.uint8) * np.uint8(255)


def _colourless(known: NDArray[np.bool_]) -> tuple[Places, Places]:
    """Return the positions (N,) of a picture (h, w) without chroma, and of the nearest pixels that have it."""
    height, width = known.shape
    every = torch.arange(height * width, dtype=torch.float64).view(1, 1, height, width)
    nearest = reconstruct_nearest(every, torch.from_numpy(known)[None, None]).flatten().numpy().astype(np.intp)
    places = np.flatnonzero(~known)
    return places, nearest[places]


@lru_cache(len(Colour))
@torch.inference_mode(False)
def _rgb_product(colour: Colour) -> tuple[Tensor, Tensor]:
    """Return weights (3, 3) and origin (3, 1): weights · (Y, Cb, Cr) + origin is RGB in [0, 1]."""
    black, y, rv, gu, gv, bu = rgb_weights(colour)
    weights = torch.tensor([[y, 0.0, rv], [y, gu, gv], [y, bu, 0.0]], dtype=torch.float64) / 255
    origin = -weights @ torch.tensor([[black], [NEUTRAL], [NEUTRAL]], dtype=torch.float64)
    return weights.float(), origin.float()
