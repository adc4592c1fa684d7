"""Scores of pictures by STRIP and drop disagreement, as the probes of a camera that shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.data import LabelledPictures
from lab.strip.disagreement import Fused, agreements
from lab.strip.measure import check
from processors.pipeline import Pipeline
from schemas.evidence.track import Probe


@dataclass(frozen=True)
class Scores:
    """STRIP's entropy in bits, the agreement behind drops, and the verdict of n pictures, all (n,).

    The agreement is 0 for a bundle without a threshold of it.
    """

    bits: NDArray[np.float64]
    agreement: NDArray[np.float64]
    verdict: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.bits)

    def take(self, positions: NDArray[np.intp]) -> Scores:
        """Return the scores of the pictures at `positions` (m,)."""
        return Scores(self.bits[positions], self.agreement[positions], self.verdict[positions])

    def probes(self, limits: Fused) -> list[Probe]:
        """Return a probe of each picture with the frame's thresholds `limits`; all have the sequence number 0."""
        flagged = limits.flags(self.bits, self.agreement).tolist()
        columns = (self.bits.tolist(), flagged, self.verdict.tolist(), self.agreement.tolist())
        return [
            Probe(0, bits, limits.strip_bits, flag, verdict, agreement, limits.agreement)
            for bits, flag, verdict, agreement in zip(*columns, strict=True)
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
    has_drops = strip is not None and strip.disagreement is not None
    agreement = agreements(pipeline, pictures, advance=advance) if has_drops else np.zeros(len(pictures))
    return Scores(found.bits, agreement, found.verdict)
