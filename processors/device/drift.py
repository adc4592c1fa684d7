"""The drift statistics of one loaded model: a sample of its frames, compared with its calibration pictures."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor

from processors.stages.discrepancy import Features, discrepancy, features_of
from schemas.messages.models import DRIFT_WINDOWS

WINDOW: Final = 64
"""Frames that are compared together."""


class DriftState(NamedTuple):
    """The state of the statistics. The ratios are the least of the last `DRIFT_WINDOWS` windows, 0 before these.

    Without drift, a window's ratio exceeds 1 with a probability of `processors.stages.discrepancy.LEVEL` at most.
    """

    windows: int = 0
    """Full windows since the model was loaded."""
    pictures: float = 0.0
    """Discrepancy of the pictures ÷ its limit."""
    answers: float = 0.0
    """Discrepancy of the verdicts ÷ its limit."""


class DriftSampler:
    """Takes one frame every `interval_s` seconds, and compares each full window with the reference.

    All calls come from one thread; `state` may be read from any. A camera's neighbouring frames are alike. So the
    interval is long: a window then covers many scenes.
    """

    def __init__(self, reference: Features | None, interval_s: float, clock: Callable[[], float]) -> None:
        """Without a `reference`, `state` is always None."""
        self._reference = reference
        self._interval_s = interval_s
        self._clock = clock
        self._due_s = clock() + interval_s
        self._rows: list[Features] = []
        self._past: deque[tuple[float, float]] = deque(maxlen=DRIFT_WINDOWS)
        self._chance = torch.Generator().manual_seed(0)
        self.state: DriftState | None = None if reference is None else DriftState()

    @property
    def due(self) -> bool:
        """Whether `sample` would take a frame now."""
        return self._reference is not None and self._clock() >= self._due_s

    def sample(self, pictures: Tensor, logits: Tensor) -> None:
        """Take one frame if one is due: its (1, C, H, W) of `processors.pipeline.deciding_pictures`, and its logits."""
        if self._reference is None or self.state is None or not self.due:
            return
        self._due_s = self._clock() + self._interval_s
        row = Features(*(each.cpu() for each in features_of(pictures, logits)))
        if not all(bool(each.isfinite().all()) for each in row):
            return
        self._rows.append(row)
        if len(self._rows) < WINDOW:
            return
        window = [torch.cat(each) for each in zip(*self._rows, strict=True)]
        self._rows.clear()
        seen, answered = (
            discrepancy(known, found, self._chance).ratio for known, found in zip(self._reference, window, strict=True)
        )
        self._past.append((seen, answered))
        least = map(min, zip(*self._past, strict=True)) if len(self._past) == DRIFT_WINDOWS else (0.0, 0.0)
        self.state = DriftState(self.state.windows + 1, *least)
