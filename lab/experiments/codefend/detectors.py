"""The statistics of the system and of others on the backdoored models, with thresholds from the same pictures."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lab.cache import Cache
from lab.experiments.codefend.rows import DetectorRow
from lab.experiments.codefend.scores import BEATRIX, FRR, NORMS, OWN, SCALED, TOGETHER, Numbers, scores
from lab.experiments.codefend.subjects import Subject
from lab.statistics import wilson
from lab.strip.calibrate import threshold_of

EVERY: Final = (*OWN.values(), TOGETHER, SCALED, BEATRIX)
"""Statistics that run live, alone and together, and those of others."""


def detectors(subject: Subject, numbers: Numbers, cache: Cache) -> list[DetectorRow]:
    """Return a row for each of `EVERY` on test pictures. Of the stamped ones, those that reach the target count.

    A network has rows of the statistics that it allows.
    """
    found = scores(subject, numbers, cache)
    reached = found.stamped.verdict == subject.poisoning.aims(found.stamped.label)
    rows = []
    for name in EVERY:
        if name not in found.known.values:
            continue
        limit = found.combined.threshold if name == TOGETHER else threshold_of(found.known.values[name], FRR)
        clean, attacked = found.clean.values[name], found.stamped.values[name][reached]
        rows.append(
            DetectorRow(
                subject.name,
                name,
                found.combined.norms if name == NORMS else None,
                len(clean),
                len(attacked),
                area(attacked, clean),
                *wilson(int((clean < limit).sum()), len(clean)),
                *wilson(int((attacked < limit).sum()), max(1, len(attacked))),
            )
        )
    return rows


def area(attacked: NDArray[np.float64], clean: NDArray[np.float64]) -> float:
    """Return the area under the ROC curve: how often an attacked frame lies below a clean one, ties counted half."""
    ordered = np.sort(clean)
    above = len(clean) - np.searchsorted(ordered, attacked, "right")
    equal = np.searchsorted(ordered, attacked, "right") - np.searchsorted(ordered, attacked, "left")
    return float((above + equal / 2).mean() / len(clean)) if len(attacked) else 0.0
