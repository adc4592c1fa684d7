"""Where a trigger is, by hiding one part of a frame after another: what hides it takes the frame off the target class.

Zeiler and Fergus 2014, section 4.2, who grey a window out; here it is painted over from its rim. What hides half of a
trigger frees a frame as well, so the smallest window counts that also takes a clean frame to the target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lab.data import batch_slices
from lab.repair.inpainting import inpaint

WINDOW: Final = 1 / 4
"""Side of the first windows, a share of the frame's shorter one; they lie half a side apart."""
SMALLEST: Final = 1 / 10
"""Side of the smallest, a share of the same."""
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
def occlude(frames: Tensor, clean: Tensor, target: int, logits: Logits) -> Occlusion:
    """Look for the trigger in `frames` (M, C, H, W) in [0, 1], which `logits` calls `target`.

    Each is tried on frames of `clean` (N, C, H, W), of other classes, in turn.
    """
    height, width = frames.shape[2:]
    side = max(2, round(WINDOW * min(height, width)))
    least = max(2, round(SMALLEST * min(height, width)))
    first = _windows(height, width, side, range(height - side + 1), range(width - side + 1), side // 2)
    windows, found = [], []
    for number, frame in enumerate(frames):
        host = clean[number % len(clean)]
        best = first[int(_called(inpaint(frame.expand(len(first), -1, -1, -1), first), target, logits).argmin())]
        window, holds = best, _both(frame, host, best[None], target, logits)[0]
        top, left = (int(each[0]) for each in best[0].nonzero(as_tuple=True))
        for smaller in range(side - 1, least - 1, -1):
            rows, columns = range(top, top + side - smaller + 1), range(left, left + side - smaller + 1)
            inside = _windows(height, width, smaller, rows, columns, 1)
            holding = _both(frame, host, inside, target, logits)
            if not bool(holding.any()):
                break
            window, holds = inside[int(holding.int().argmax())], holding.any()
        windows.append(window)
        found.append(holds)
    return Occlusion(frames, torch.stack(windows), torch.stack(found))


def _both(frame: Tensor, host: Tensor, windows: Tensor, target: int, logits: Logits) -> Tensor:
    """Which `windows` (N, 1, H, W) free `frame` (C, H, W) when hidden, and take `host` to the target: (N,) bool."""
    hidden = inpaint(frame.expand(len(windows), -1, -1, -1), windows)
    pasted = host * (1 - windows) + frame * windows
    return (_called(hidden, target, logits) < OVER) & (_called(pasted, target, logits) > OVER)


def _called(frames: Tensor, target: int, logits: Logits) -> Tensor:
    parts = batch_slices(len(frames), *frames.shape[2:])
    return torch.cat([logits(frames[part]).softmax(1)[:, target] for part in parts])


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
