"""Scores of pictures by STRIP, drop disagreement and typicality, as the probes of a camera that shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.data import LabelledPictures
from lab.strip.disagreement import agreements
from lab.strip.fused import Fused
from lab.strip.measure import check
from lab.strip.typicality import typicalities
from processors.pipeline import Pipeline
from schemas.evidence.track import Probe


@dataclass(frozen=True)
class Scores:
    """STRIP's entropy in bits, the agreement behind drops, the typicality, and the verdict of n pictures, all (n,).

    Agreement and typicality are 0 for a bundle without a threshold of them.
    """

    bits: NDArray[np.float64]
    agreement: NDArray[np.float64]
    typicality: NDArray[np.float64]
    verdict: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.bits)

    def take(self, positions: NDArray[np.intp]) -> Scores:
        """Return the scores of the pictures at `positions` (m,)."""
        return Scores(
            self.bits[positions], self.agreement[positions], self.typicality[positions], self.verdict[positions]
        )

    def probes(self, limits: Fused) -> list[Probe]:
        """Return a probe of each picture with the frame's thresholds `limits`; all have the sequence number 0."""
        flagged = limits.flags(self.bits, self.agreement, self.typicality)
        columns = (self.bits, flagged, self.verdict, self.agreement, self.typicality)
        return [
            Probe(0, bits, limits.strip_bits, flag, verdict, agreement, limits.agreement, usual, limits.typicality)
            for bits, flag, verdict, agreement, usual in zip(*(each.tolist() for each in columns), strict=True)
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
    usual = np.zeros(len(pictures))
    if pipeline.bundle.features is not None:
        usual = typicalities(pipeline, pipeline.bundle.features, pictures, advance=advance)
    return Scores(found.bits, agreement, usual, found.verdict)
