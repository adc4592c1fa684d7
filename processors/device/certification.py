"""The certification of one frame on the device, a batch of passes at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from processors.arrivals.job import WindowDependence
from processors.bundle.model_toml import Scores
from processors.pipeline import Pipeline
from processors.stages.certify import Certificate, certification, kept_outside, spans, windows
from processors.stages.planar import Unplaced
from schemas.messages.moving import Box

AT_ONCE: Final = 64
"""Most passes of a batch."""
PIXELS_AT_ONCE: Final = 2**14
"""Pixels of a batch of passes: a batch is not interrupted, so this bounds how long classification waits."""


@dataclass(frozen=True, slots=True)
class Sticker:
    """A square sticker of a share `area` of the frame's area, and the most windows `across` a side."""

    area: float = 0.02
    across: int = 4

    def side(self, height: int, width: int) -> int:
        """Return its side in pixels of a frame of this size, rounded up."""
        return min(height, width, math.ceil(math.sqrt(self.area * height * width)))


class Certification:
    """The certification of one frame in progress. All calls come from the device's thread."""

    def __init__(
        self, pipeline: Pipeline, frames: Tensor | Unplaced, kept: Tensor, seeds: Tensor | None, sticker: Sticker
    ) -> None:
        """`frames` is (1, C, H, W) in [0, 1] with its mask `kept` (1, 1, H, W); `seeds` (1,) are its draws."""
        self.side = sticker.side(*kept.shape[2:])
        """Side of the sticker in frame pixels."""
        self._pipeline = pipeline
        self._seeds = seeds
        self._picture, self._kept, patch = pipeline.at_own_scale(frames, kept, (self.side, self.side))
        height, width = self._picture.shape[2:]
        self._inside = windows(height, width, patch, sticker.across).to(kept.device)
        scale = kept.shape[2] / height, kept.shape[3] / width
        rows, columns = (spans(*each, sticker.across) for each in ((height, patch[0]), (width, patch[1])))
        self._places = [
            Box(
                math.floor(top * scale[0]), math.ceil(bottom * scale[0]),
                math.floor(left * scale[1]), math.ceil(right * scale[1]),
            )
            for top, bottom in rows
            for left, right in columns
        ]  # fmt: skip
        at_once = max(1, min(AT_ONCE, PIXELS_AT_ONCE // (height * width)))
        self._passes = certification(len(self._inside), at_once, label=False)
        self._asked = next(self._passes)

    def examined(self, certificate: Certificate, scores: Scores) -> tuple[WindowDependence, ...]:
        """Return the windows of a certificate in frame pixels, and the dependence of a verdict with `scores` on each.

        The dependence is the probability that the class of the verdict loses without the window.
        """
        missing = certificate.dependence(scores.class_id, self._pipeline.bundle.settings.temperature)
        lost = (missing - (1 - scores.confidence)).clip(min=0)
        return tuple(map(WindowDependence, self._places, lost.tolist()))

    def advance(self) -> Certificate | None:
        """Run the next batch of passes; return the certificate after the last one."""
        pairs = torch.from_numpy(self._asked).to(self._kept.device)
        kept = kept_outside(self._inside, pairs, self._kept)
        seeds = None if self._seeds is None else self._seeds.expand(len(kept))
        logits = self._pipeline.logits(self._picture.expand(len(kept), -1, -1, -1), kept, seeds)
        try:
            self._asked = self._passes.send(logits.float().cpu().numpy())
        except StopIteration as ended:
            found: Certificate = ended.value
            return found
        return None
