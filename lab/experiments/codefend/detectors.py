"""The statistics of the system and of others on the backdoored models, with thresholds from the same pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lab.cache import Cache
from lab.experiments.codefend.rows import DetectorRow
from lab.experiments.codefend.scores import BEATRIX, DROP, NORMS, SCALED, STRIP, Numbers, scores
from lab.experiments.codefend.subjects import Subject
from lab.statistics import wilson
from lab.strip.calibrate import threshold_of
from lab.strip.fused import parts
from schemas.evidence.alarms import TYPICALITY

FRR: Final = 0.01
LIVE: Final = (STRIP, DROP, TYPICALITY)
SETS: Final = (
    *((each,) for each in (STRIP, DROP, TYPICALITY, NORMS, SCALED, BEATRIX)), (STRIP, DROP), LIVE, (*LIVE, NORMS)
)  # fmt: skip
"""Statistics alone and together, with the parts of the false alarms of `lab.strip.fused`."""


def detectors(subject: Subject, numbers: Numbers, cache: Cache) -> list[DetectorRow]:
    """Return a row for each of `SETS` on test pictures. Of the stamped ones, those that reach the target count.

    Networks without batch norms have fewer rows.
    """
    found = scores(subject, numbers, cache)
    reached = found.stamped.verdict == subject.poisoning.aims(found.stamped.label)
    attacked = {name: values[reached] for name, values in found.stamped.values.items()}
    rows = []
    for names in SETS:
        if not set(names) <= set(found.known.values):
            continue
        own = zip(names, parts(FRR, names), strict=True)
        limits = {name: threshold_of(found.known.values[name], part) for name, part in own}
        alarms, caught = flagged(found.clean.values, limits), flagged(attacked, limits)
        frr = wilson(int(alarms.sum()), len(alarms))
        detected = wilson(int(caught.sum()), max(1, len(caught)))
        rows.append(
            DetectorRow(
                subject.name,
                " + ".join(names),
                found.depth if NORMS in names else None,
                len(alarms),
                len(caught),
                area(attacked[names[0]], found.clean.values[names[0]]) if len(names) == 1 else None,
                *frr,
                *detected,
            )
        )
    return rows


def flagged(values: Mapping[str, NDArray[np.float64]], limits: Mapping[str, float]) -> NDArray[np.bool_]:
    """Return whether pictures lie below at least one statistic's limit, (n,)."""
    found: NDArray[np.bool_] = np.any([values[name] < limit for name, limit in limits.items()], axis=0)
    return found


def area(attacked: NDArray[np.float64], clean: NDArray[np.float64]) -> float:
    """Return the area under the ROC curve: how often an attacked frame lies below a clean one, ties counted half."""
    ordered = np.sort(clean)
    above = len(clean) - np.searchsorted(ordered, attacked, "right")
    equal = np.searchsorted(ordered, attacked, "right") - np.searchsorted(ordered, attacked, "left")
    return float((above + equal / 2).mean() / len(clean)) if len(attacked) else 0.0
