"""Decoded video at the network's scale: luma and chroma are resampled as planes, and the small picture becomes RGB.

The conversion to RGB and the resampling of `processors.stages.at_scale` are both linear. In either order they give the
same picture up to two differences, which tests bound:

- The other order rounds each pixel to 8 bits, and limits it to RGB's range. Here, only the result is limited.
- A chroma sample counts in full if any of its pixels was kept, and not by their number.

Values of dropped pixels are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from processors.stages import banded
from processors.stages.at_scale import LEAST_SHARE
from processors.stages.packed import Packed
from processors.stages.plate import TINY
from processors.stages.shapes import check_size
from schemas.pixels.masks import Mask
from schemas.pixels.planes import NEUTRAL, Colour, Planes, rgb_weights, to_picture

SHRINKS_FROM: Final = 2
"""Factor, along both sides, from which frames are resampled as planes: one chroma sample then has at most an output's
width."""
STRIP_LINES: Final = 48
"""Lines of luma in one product: more multiply weights that are zero, fewer are too few for a product."""


class _Shares(NamedTuple):
    """The weights that kept samples have in the pixels of a resampled picture (height, width)."""

    luma: Tensor
    """Share of each pixel's luma weights, from 0 to 1."""
    luma_scale: Tensor
    """The factor that turns a weighted sum of luma into the mean of the kept samples."""
    chroma_scale: Tensor
    """The same for a sum of chroma."""
    known: Tensor
    """True where the share is at least `LEAST_SHARE`."""
    complete: bool
    """Whether all pixels are known."""

    @property
    def nbytes(self) -> int:
        """Its memory."""
        return sum(each.nbytes for each in (self.luma, self.luma_scale, self.chroma_scale, self.known))


class PlaneMask:
    """A mask (H, W) of kept pixels as masks of planes, and its shares of resampled pictures: one for a group of
    pictures."""

    def __init__(self, kept: Mask) -> None:
        height, width = kept.shape
        even = np.zeros((height + height % 2, width + width % 2), dtype=np.bool_)
        even[:height, :width] = kept
        cells = even[0::2] | even[1::2]
        self.kept = torch.from_numpy(np.ascontiguousarray(kept))
        self.shape = height, width
        self._luma = _selection(self.kept)
        chroma = _selection(torch.from_numpy(cells[:, 0::2] | cells[:, 1::2]))
        self._chroma = None if chroma is None else torch.cat((chroma, chroma), 1)
        self._shares: dict[tuple[int, int], _Shares] = {}

    @property
    def nbytes(self) -> int:
        """Its memory."""
        held = sum(each.nbytes for each in (self.kept, self._luma, self._chroma) if each is not None)
        return held + sum(each.nbytes for each in self._shares.values())

    def shares(self, height: int, width: int) -> _Shares:
        """Return the shares of kept samples in pictures of `height` × `width`."""
        found = self._shares.get((height, width))
        if found is None:
            luma, chroma = (
                torch.ones(height, width) if each is None else _summed(each, None, self.shape, height, width)[0] / 255
                for each in (self._luma, self._chroma)
            )
            known = luma >= LEAST_SHARE
            of_luma, of_chroma = (1 / each.clamp_min(TINY) for each in (luma, chroma))
            found = self._shares[height, width] = _Shares(luma, of_luma, of_chroma, known, bool(known.all()))
        return found

    def means(self, planes: Planes, channels: int, height: int, width: int) -> Tensor:
        """Return the picture (channels, height, width) in [0, 1] of the kept samples' means."""
        shares = self.shares(height, width)
        luma = _summed(torch.from_numpy(planes.luma), self._luma, self.shape, height, width)
        if channels == 1:
            return luma.mul_(shares.luma_scale).div_(255).clamp_(0, 1)
        assert planes.blue is not None
        assert planes.red is not None
        chroma = torch.from_numpy(np.concatenate((planes.blue, planes.red), axis=1))
        means = torch.empty(channels, height, width)
        torch.mul(luma[0], shares.luma_scale, out=means[0])
        torch.mul(_summed(chroma, self._chroma, self.shape, height, width), shares.chroma_scale, out=means[1:])
        return _rgb(means, planes.colour)


class Planar:
    """Decoded frames (B, C, H, W) of one shape on a CPU, at least one, with the interface of `Packed`.

    `masks` are those of the drop, `sent` those of the pixels that were sent: for a probe these are more.
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

    def __getitem__(self, places: Sequence[int]) -> Planar:
        """Return the frames at these positions, in this order."""
        planes = [self._planes[i] for i in places]
        return Planar(planes, self.shape[1], [self._masks[i] for i in places], [self._sent[i] for i in places])

    def cut(self, place: int, rows: slice, columns: slice) -> Planar:
        """Return a part of the frame at `place`. Rows and columns begin at even places."""
        masks = [each[place].kept[rows, columns].numpy() for each in (self._masks, self._sent)]
        kept = PlaneMask(masks[0])
        sent = kept if self._sent[place] is self._masks[place] else PlaneMask(masks[1])
        return Planar([_cut(self._planes[place], rows, columns)], self.shape[1], [kept], [sent])

    @cached_property
    def kept(self) -> Tensor:
        """The masks (B, 1, H, W) of the drop."""
        return torch.stack([each.kept for each in self._masks])[:, None]

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
        known = torch.stack([each.known for each in shares])[:, None]
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
        channels = self.shape[1]
        found = [mask.means(each, channels, height, width) for each, mask in zip(self._planes, masks, strict=True)]
        pictures = found[0][None] if len(found) == 1 else torch.stack(found)
        return pictures, [mask.shares(height, width) for mask in masks]


Unplaced = Packed | Planar
"""Frames that are placed on request, or resampled without that."""


def _cut(planes: Planes, rows: slice, columns: slice) -> Planes:
    half = slice(rows.start // 2, -(-rows.stop // 2)), slice(columns.start // 2, -(-columns.stop // 2))
    chroma = [None if each is None else np.ascontiguousarray(each[half]) for each in (planes.blue, planes.red)]
    return planes._replace(luma=np.ascontiguousarray(planes.luma[rows, columns]), blue=chroma[0], red=chroma[1])


@lru_cache(16)
@torch.inference_mode(False)
def whole_mask(height: int, width: int) -> PlaneMask:
    """Return the mask of a picture of which every pixel was sent."""
    return PlaneMask(np.ones((height, width), dtype=np.bool_))


def _selection(kept: Tensor) -> Tensor | None:
    """Return 255 at kept samples and 0 at others; None if all are kept."""
    return None if kept.numpy().all() else kept.to(torch.uint8).mul_(255)


def _summed(plane: Tensor, selection: Tensor | None, shape: tuple[int, int], height: int, width: int) -> Tensor:
    """Return weighted sums (P, height, width) of the selected samples of P planes of a picture of this `shape`.

    The planes, of one size, lie side by side in `plane`: one product serves them all.
    """
    cell = -(-shape[0] // plane.shape[0])
    columns = -(-shape[1] // cell)
    sums = torch.zeros(height, plane.shape[1])
    for strip in banded.strips(shape[0], height, STRIP_LINES // cell, cell):
        samples = plane[strip.lines]
        if selection is not None:
            samples = samples & selection[strip.lines]
        sums[strip.outputs].addmm_(strip.weights, samples.to(torch.float32))
    rows = sums.view(-1, columns)
    narrow = torch.empty(len(rows), width)
    for part in banded.columns(shape[1], width, cell):
        torch.mm(rows[:, part.lines], part.weights, out=narrow[:, part.outputs])
    return narrow.view(height, -1, width).transpose(0, 1)


def _rgb(means: Tensor, colour: Colour) -> Tensor:
    """Return the picture (3, H, W) in [0, 1] of luma, Cb and Cr (3, H, W)."""
    weights, origin = _rgb_product(colour)
    picture = torch.addmm(origin, weights, means.flatten(1)).view_as(means)
    return picture.clamp_(0, 1)


@lru_cache(len(Colour))
@torch.inference_mode(False)
def _rgb_product(colour: Colour) -> tuple[Tensor, Tensor]:
    """Return weights (3, 3) and origin (3, 1): weights · (Y, Cb, Cr) + origin is RGB in [0, 1]."""
    black, y, rv, gu, gv, bu = rgb_weights(colour)
    weights = torch.tensor([[y, 0.0, rv], [y, gu, gv], [y, bu, 0.0]], dtype=torch.float64) / 255
    origin = -weights @ torch.tensor([[black], [NEUTRAL], [NEUTRAL]], dtype=torch.float64)
    return weights.float(), origin.float()
