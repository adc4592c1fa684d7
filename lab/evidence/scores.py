"""Scores of pictures by STRIP and by all statistics together, as the probes of a camera that shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.data import LabelledPictures
from lab.strip.combined import Statistics
from lab.strip.measure import check
from processors.bundle.strip_table import ENTROPY
from processors.pipeline import Pipeline
from schemas.evidence.alarms import COMBINED, STRIP
from schemas.evidence.track import Probe


class Limits(NamedTuple):
    """The frame's thresholds: of STRIP's entropy in bits, and of the p-value, 0 if STRIP alone judges."""

    strip_bits: float
    p_value: float = 0.0

    @property
    def kind(self) -> str:
        """The kind of alert that these thresholds can raise."""
        return COMBINED if self.p_value else STRIP


@dataclass(frozen=True)
class Scores:
    """STRIP's entropy in bits, the p-value, and the verdict of n pictures, all (n,).

    The p-values are 0 for a bundle without a threshold of them.
    """

    bits: NDArray[np.float64]
    p_value: NDArray[np.float64]
    verdict: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.bits)

    def take(self, positions: NDArray[np.intp]) -> Scores:
        """Return the scores of the pictures at `positions` (m,)."""
        return Scores(self.bits[positions], self.p_value[positions], self.verdict[positions])

    def probes(self, limits: Limits) -> list[Probe]:
        """Return a probe of each picture with the frame's thresholds `limits`; all have the sequence number 0."""
        flagged = self.p_value < limits.p_value if limits.p_value else self.bits < limits.strip_bits
        columns = (self.bits, flagged, self.verdict, self.p_value)
        return [
            Probe(0, bits, limits.strip_bits, flag, verdict, p_value, limits.p_value)
            for bits, flag, verdict, p_value in zip(*(each.tolist() for each in columns), strict=True)
        ]


class Halves(NamedTuple):
    """Scores that choose, and others that judge."""

    choosing: Scores
    judging: Scores


def halves(scores: Scores) -> Halves:
    """Return the scores of every second picture, and those of the others."""
    every = np.arange(len(scores))
    return Halves(scores.take(every[::2]), scores.take(every[1::2]))


def scored(
    pipeline: Pipeline, pictures: LabelledPictures, advance: Callable[[int], object] = lambda count: None
) -> Scores:
    """Return the scores of whole pictures. STRIP stops early on clean ones, as it does live."""
    strip = pipeline.bundle.settings.strip
    found = check(pipeline, pictures, sequential=True, advance=advance)
    if strip is None or strip.combined is None:
        return Scores(found.bits, np.zeros(len(pictures)), found.verdict)
    values = Statistics.of_bundle(pipeline).measured(pictures, advance, {ENTROPY: found.bits})
    return Scores(found.bits, strip.combined.judge(values).values, found.verdict)
