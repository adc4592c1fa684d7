"""The policy `motion`: the square around what moves replaces its frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from torch import Tensor

from processors.stages.planar import Unplaced
from schemas.limits import BLOCK
from schemas.messages.moving import Box

Squares: TypeAlias = Sequence[Box | None]
"""The square of each frame of a batch; None for a frame that stays whole."""


def square(box: Box, height: int, width: int, least: int) -> Box:
    """Return the square around `box` in a frame of `height` × `width`, with sides of at least `least` pixels.

    It begins and ends at whole blocks of the frame, and lies within the frame. Where the frame is
    too short for a square, it is a rectangle.
    """
    side = max(box.bottom - box.top, box.right - box.left, least)
    top, bottom = _span(box.top, box.bottom, side, height)
    left, right = _span(box.left, box.right, side, width)
    return Box(top, bottom, left, right)


def _span(first: int, last: int, side: int, whole: int) -> tuple[int, int]:
    begin = min(max(0, (first + last - side) // 2), max(0, whole - side))
    return begin // BLOCK * BLOCK, min(whole, -(-(begin + side) // BLOCK) * BLOCK)


def cut_out(frames: Tensor | Unplaced, kept: Tensor, place: int, part: Box) -> tuple[Tensor | Unplaced, Tensor]:
    """Return the frame at `place` of frames (B, C, H, W) and its mask, cut to `part`: (1, C, h, w) and (1, 1, h, w)."""
    mask = kept[place : place + 1, :, part.top : part.bottom, part.left : part.right]
    return cut_frame(frames, place, part), mask


def cut_frame(frames: Tensor | Unplaced, place: int, part: Box | None) -> Tensor | Unplaced:
    """Return the frame at `place` of frames (B, C, H, W), cut to `part` or whole: (1, C, h, w)."""
    if part is None:
        return frames[place : place + 1] if isinstance(frames, Tensor) else frames[[place]]
    rows, columns = slice(part.top, part.bottom), slice(part.left, part.right)
    return (
        frames[place : place + 1, :, rows, columns] if isinstance(frames, Tensor) else frames.cut(place, rows, columns)
    )
