"""The plainest reconstruction: every dropped pixel takes the value of the nearest kept one."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from processors.stages.shapes import check_kept
from schemas.limits import BLOCK


def reconstruct_nearest(frames: Tensor, kept: Tensor) -> Tensor:
    """Copy each pixel of frames (B, C, H, W) where `kept` (B, 1, H, W) is False from the nearest kept one.

    Nothing is mixed: the remains of a strong pattern stay strong. Of several pixels at the same distance, the upper
    left one is used. A pixel without a kept one within two blocks becomes zero. Raises StageError if shapes do not fit.
    """
    check_kept(frames, kept)
    filled, known = torch.where(kept, frames, 0.0), kept
    height, width = frames.shape[2:]
    reach = 2 * BLOCK
    values, there = (F.pad(x.to(frames.dtype), (reach,) * 4) for x in (filled, kept))
    for down, across in _offsets(reach):
        if bool(known.all()):
            break
        rows, columns = slice(reach + down, reach + down + height), slice(reach + across, reach + across + width)
        fresh = ~known & (there[:, :, rows, columns] > 0)
        filled = torch.where(fresh, values[:, :, rows, columns], filled)
        known = known | fresh
    return filled


@cache
def _offsets(reach: int) -> list[tuple[int, int]]:
    every = [(down, across) for down in range(-reach, reach + 1) for across in range(-reach, reach + 1)]
    return sorted(every, key=lambda place: (place[0] ** 2 + place[1] ** 2, place))[1:]
