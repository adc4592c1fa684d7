"""The place of a trigger, found by occlusion: hiding the trigger takes the frame off the target class.

Zeiler and Fergus 2014, section 4.2, who replace a window by grey. Here it is inpainted from its border. Hiding half of
a trigger suffices as well. So a window counts only if its content also takes a clean frame to the target.
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
"""Sides of the first windows, as shares of the frame's shorter side, tried in turn until one contains a trigger.

Windows are half a side apart, so anything half as wide is inside one of them: triggers up to a quarter of the frame.
"""
SMALLEST: Final = 1 / 10
"""Side of the smallest window, as a share of the frame's shorter side."""
SHRINK: Final = 3 / 4
"""A window's side, as a share of that of the one around it."""
OVER: Final = 0.5
"""Probability of the target class above which a frame counts as the target."""

Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Occlusion:
    """For frames (M, C, H, W), the `window` (M, 1, H, W) of ones with the trigger, where one was `found` (M,)."""

    frames: Tensor
    window: Tensor
    found: Tensor

    @property
    def share(self) -> float:
        """The share of frames with such a window."""
        return float(self.found.float().mean())


@torch.no_grad()
def occlude(
    frames: Tensor, clean: Tensor, target: int, logits: Logits, advance: Callable[[int], object] = lambda steps: None
) -> Occlusion:
    """Locate the trigger in `frames` (M, C, H, W) in [0, 1], which `logits` classifies as `target`.

    Each is tested on one of `clean` (N, C, H, W), frames of other classes, in turn. `advance` is called for every
    frame.
    """
    windows, found = [], []
    for number, frame in enumerate(frames):
        window = _smallest(frame, clean[number % len(clean)], target, logits)
        found.append(window is not None)
        windows.append(torch.zeros_like(frame[:1]) if window is None else window)
        advance(1)
    return Occlusion(frames, torch.stack(windows), torch.tensor(found))


def _smallest(frame: Tensor, host: Tensor, target: int, logits: Logits) -> Tensor | None:
    """Return the smallest window (1, H, W) of `frame` that contains the trigger, or None."""
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
    """Return the window of `windows` (N, 1, H, W) whose hiding lowers the target of `frame` most, or None.

    Only windows whose content takes `host` to the target count.
    """
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
    """Return squares of ones on zeros, (N, 1, H, W), at every `stride`th of these rows and columns, and the last."""
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
