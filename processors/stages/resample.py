"""Resampling from the camera's size to the network's: the three policies that a bundle can name.

Each policy maps frames (B, C, H, W) to pictures of `height` × `width`; frames of that size pass unchanged. Frames with
holes use `processors.stages.at_scale` instead of `resize`, if they have enough pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from processors.stages.shapes import check_frames, check_size
from schemas.limits import BLOCK


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    """Resize the whole frame to (B, C, height, width): bilinear, low-passed first if it shrinks.

    The aspect ratio is not kept. Values stay in [0, 1], because every output is a weighted mean of inputs.
    """
    check_frames(frames)
    check_size(height, width)
    if frames.shape[2:] == (height, width):
        return frames
    return F.interpolate(frames, (height, width), mode="bilinear", align_corners=False, antialias=True)


def centre_crop(frames: Tensor, height: int, width: int) -> Tensor:
    """Return the middle `height` × `width` pixels at full resolution: (B, C, height, width).

    If an odd number of pixels is cut, the extra one is cut from the lower or right side. A side that is too short is
    extended on both ends by its edge pixel.
    """
    check_frames(frames)
    check_size(height, width)
    frames = _at_least(frames, height, width)
    top, left = (frames.shape[2] - height) // 2, (frames.shape[3] - width) // 2
    return frames[:, :, top : top + height, left : left + width]


class Window(NamedTuple):
    """The window of `centre_crop` along one side: `outer` cuts it with a margin from the frame, `inner` removes the
    margin."""

    outer: slice
    inner: slice
    cut: bool
    """True if `outer` is less than the whole side."""


def window(side: int, middle: int, margin: int) -> Window:
    """Return the middle `middle` pixels of `side`, as in `centre_crop`, and about `margin` pixels around them.

    The outer part begins at a whole block: stages that work on blocks or folds find the same blocks and folds in the
    cut.
    """
    first = max(0, (side - middle) // 2)
    last = min(side, first + middle)
    start = max(0, first - margin) // BLOCK * BLOCK
    end = min(side, last + margin)
    return Window(slice(start, end), slice(first - start, last - start), end - start < side)


def fitted(height: int, width: int, longest: int) -> tuple[int, int]:
    """Return the size with the same aspect ratio whose longer side has at most `longest` pixels; never a larger one."""
    check_size(height, width)
    share = min(1.0, longest / max(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


def tiles(frames: Tensor, height: int, width: int) -> tuple[Tensor, int]:
    """Return every pixel at full resolution, as T tiles a frame: (B · T, C, height, width) and T.

    The tiles of one frame stand together, row by row: `logits.view(B, T, -1)` groups them. The tiles are the fewest
    that cover the frame, spread evenly: they overlap if a side is not a multiple of the tile's, and none reaches
    outside. A side that is too short is extended on both ends by its edge pixel.
    """
    check_frames(frames)
    check_size(height, width)
    frames = _at_least(frames, height, width)
    tops, lefts = _starts(frames.shape[2], height), _starts(frames.shape[3], width)
    cut = [frames[:, :, top : top + height, left : left + width] for top in tops for left in lefts]
    return torch.stack(cut, dim=1).flatten(0, 1), len(cut)


def _starts(side: int, tile: int) -> list[int]:
    count = -(-side // tile)
    return [round(i * (side - tile) / max(1, count - 1)) for i in range(count)]


def _at_least(frames: Tensor, height: int, width: int) -> Tensor:
    rows, columns = max(0, height - frames.shape[2]), max(0, width - frames.shape[3])
    if not rows and not columns:
        return frames
    margins = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return F.pad(frames, margins, mode="replicate")
