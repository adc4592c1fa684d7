"""The mean change of the pixels that a camera sent twice: zero for a source that repeats one picture.

Each frame keeps other pixels: two rebuilt pictures of one still scene differ by more than a quiet live scene changes.
Pixels that both frames kept are exact in both. A difference there is the scene, its light or the sensor's noise. A grid
of positions is compared, one colour channel, at most once in `APART_S` for each camera.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from processors.stages.packed import PackedFrames
from schemas.limits import MAX_CAMERAS
from schemas.runtime.throttle import Throttle

APART_S: Final = 1.0
GRID: Final = 48
"""Positions along each side of a frame, at most. If a quarter of the pixels is kept, two frames share 144."""
_LEAST_SHARED: Final = 8
"""The fewest positions kept by both frames that allow a comparison."""


class Sample(NamedTuple):
    """A frame at the positions of the grid."""

    shape: tuple[int, ...]
    """Channels, height and width of the frame."""
    values: NDArray[np.uint8]
    """(N,), of one channel."""
    sent: NDArray[np.uint8]
    """The sent ones among the N positions, as bits."""


class Stillness:
    """The last sample of each camera: 2.6 kB for each of the `remembered` cameras that were sampled last."""

    def __init__(self, remembered: int = MAX_CAMERAS, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._remembered = remembered
        self._clock_s = clock_s
        self._turns: Throttle[str] = Throttle(APART_S, remembered)
        self._last: OrderedDict[str, Sample] = OrderedDict()

    def changes(self, cameras: Sequence[str], frames: Tensor | PackedFrames, sent: Tensor) -> dict[int, float]:
        """Return the mean change since the last sample, in grey levels of 255, by the position of the frame.

        `frames` (B, C, H, W), one of each of `cameras` (B), are in [0, 1] with pixels where `sent` (B, 1, H, W) is
        True.
        """
        now_s = self._clock_s()
        due = [i for i, camera in enumerate(cameras) if self._turns.try_acquire(camera, now_s)]
        if not due:
            return {}
        found = {}
        for i, sample in zip(due, samples(frames[due], sent[due]), strict=True):
            camera = cameras[i]
            before = self._last.pop(camera, None)
            self._last[camera] = sample
            change = None if before is None else change_between(before, sample)
            if change is not None:
                found[i] = change
        while len(self._last) > self._remembered:
            self._last.popitem(last=False)
        return found


def change_between(before: Sample, after: Sample) -> float | None:
    """Return the mean absolute difference at the positions that both frames sent; None if they share too few."""
    if before.shape != after.shape:
        return None
    both = np.unpackbits(before.sent & after.sent, count=len(after.values)).view(np.bool_)
    if np.count_nonzero(both) < _LEAST_SHARED:
        return None
    return float(np.abs(before.values[both].astype(np.int16) - after.values[both]).mean())


def samples(frames: Tensor | PackedFrames, sent: Tensor) -> list[Sample]:
    """Return frames (B, C, H, W) in [0, 1] at the positions of the grid; `sent` (B, 1, H, W) is True at sent pixels."""
    shape = tuple(frames.shape[1:])
    rows, columns = _positions(shape[1]), _positions(shape[2])
    channel = shape[0] // 2
    if isinstance(frames, PackedFrames):
        values, had = frames.at(rows, columns, channel)
    else:
        ys, xs = (torch.from_numpy(each).to(frames.device) for each in (rows, columns))
        grid = frames[:, channel].index_select(1, ys).index_select(2, xs)
        values = grid.mul(255).round_().byte().cpu().numpy()
        had = sent[:, 0].index_select(1, ys).index_select(2, xs).cpu().numpy()
    count = len(values)
    return [
        Sample(shape, each, np.packbits(mask))
        for each, mask in zip(values.reshape(count, -1), had.reshape(count, -1), strict=True)
    ]


@lru_cache(64)
def _positions(side: int) -> NDArray[np.int64]:
    count = min(side, GRID)
    found: NDArray[np.int64] = np.arange(count) * side // count
    return found
