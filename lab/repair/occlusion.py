"""Where a trigger is, by hiding one part of a frame after another: what hides it takes the frame off the target class.

Zeiler and Fergus 2014, section 4.2, who grey a window out; here it is painted over from its rim. What hides half of a
trigger frees a frame as well, so only windows count that also take a clean frame to the target when they are cut out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lab.data import batch_slices
from lab.repair.inpainting import inpaint

WINDOWS: Final = (1 / 4, 3 / 8, 1 / 2)
"""Sides of the first windows, shares of the frame's shorter one, in turn until one holds a trigger.

They lie half a side apart, so whatever is half as wide lies in one of them: triggers up to a quarter of the frame.
"""
SMALLEST: Final = 1 / 10
"""Side of the smallest window, a share of the same."""
SHRINK: Final = 3 / 4
"""A window's side, a share of that of the one around it."""
OVER: Final = 0.5
"""Probability of the target class above which a frame is taken to be sent there."""

Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Occlusion:
    """Of frames (M, C, H, W), the `window` (M, 1, H, W) of ones with the trigger, as far as one was `found` (M,)."""

    frames: Tensor
    window: Tensor
    found: Tensor

    @property
    def share(self) -> float:
        """The share of frames in which there is such a window."""
        return float(self.found.float().mean())


@torch.no_grad()
def occlude(
    frames: Tensor, clean: Tensor, target: int, logits: Logits, advance: Callable[[int], object] = lambda steps: None
) -> Occlusion:
    """Look for the trigger in `frames` (M, C, H, W) in [0, 1], which `logits` calls `target`.

    Each is tried on one of `clean` (N, C, H, W), frames of other classes, in turn. `advance` is told of every frame.
    """
    windows, found = [], []
    for number, frame in enumerate(frames):
        window = _smallest(frame, clean[number % len(clean)], target, logits)
        found.append(window is not None)
        windows.append(torch.zeros_like(frame[:1]) if window is None else window)
        advance(1)
    return Occlusion(frames, torch.stack(windows), torch.tensor(found))


def _smallest(frame: Tensor, host: Tensor, target: int, logits: Logits) -> Tensor | None:
    """The smallest window (1, H, W) of `frame` that holds the trigger; None when none of the first ones does."""
    height, width = frame.shape[1:]
    shorter = min(height, width)
    best: Tensor | None = None
    side = 0
    for share in WINDOWS:
        side = max(1, round(share * shorter))
        everywhere = range(height - side + 1), range(width - side + 1)
        best = _best(frame, host, _windows(height, width, side, *everywhere, max(1, side // 2)), target, logits)
        if best is not None:
            break
    while best is not None and side > max(1, round(SMALLEST * shorter)):
        top, left = (int(each[0]) for each in best[0].nonzero(as_tuple=True))
        smaller = min(side - 1, round(SHRINK * side))
        inside = range(top, top + side - smaller + 1), range(left, left + side - smaller + 1)
        within = _windows(height, width, smaller, *inside, max(1, smaller // 8))
        tighter = _best(frame, host, within, target, logits)
        if tighter is None:
            break
        best, side = tighter, smaller
    return best


def _best(frame: Tensor, host: Tensor, windows: Tensor, target: int, logits: Logits) -> Tensor | None:
    """Of `windows` (N, 1, H, W) that take `host` to the target, the one whose hiding frees `frame` most; else None."""
    hidden, pasted = [], []
    for part in batch_slices(len(windows), *windows.shape[2:]):
        window = windows[part]
        hidden.append(_called(inpaint(frame.expand(len(window), -1, -1, -1), window), target, logits))
        pasted.append(_called(host * (1 - window) + frame * window, target, logits))
    left = torch.where(torch.cat(pasted) > OVER, torch.cat(hidden), 1.0)
    return windows[int(left.argmin())] if float(left.min()) < OVER else None


def _called(frames: Tensor, target: int, logits: Logits) -> Tensor:
    return logits(frames).softmax(1)[:, target]


def _windows(height: int, width: int, side: int, rows: range, columns: range, stride: int) -> Tensor:
    """Squares of ones on zeros, (N, 1, H, W), that begin at these rows and columns: every `stride`th, and the last."""
    windows = []
    for top in _starts(rows, stride):
        for left in _starts(columns, stride):
            window = torch.zeros(1, height, width)
            window[:, top : top + side, left : left + side] = 1
            windows.append(window)
    return torch.stack(windows)


def _starts(places: range, stride: int) -> Iterator[int]:
    yield from places[:-1:stride]
    yield places[-1]
