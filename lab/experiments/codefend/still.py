"""Cameras that look at one scene for many probes, on the backdoored models, judged by all statistics together."""

from __future__ import annotations

from itertools import product
from typing import Final

import numpy as np

from lab.cache import Cache
from lab.evidence.measure import Stream
from lab.evidence.scores import Limits
from lab.evidence.still_scenes import still_episodes, still_false_alarms
from lab.experiments.codefend.rows import StillRow
from lab.experiments.codefend.still_scores import Scenes, still_scores
from lab.experiments.codefend.subjects import Subject
from lab.statistics import wilson
from schemas.evidence.rule import EvidenceRule

STAYS: Final = (1, 15, 150)
"""Probes of each scene: a scene of its own for each probe, and about one and ten minutes at the usual rate."""
OCTAVES: Final = (0.0, -4.0)
"""Distances of the camera's threshold from the frame's: the usual one, and a lower one, chosen on the scores of the
patch's network."""


def still(subject: Subject, scenes: Scenes, cache: Cache) -> list[StillRow]:
    """Return a row for each of `OCTAVES` and `STAYS`."""
    found, rows = still_scores(subject, scenes, cache), list[StillRow]()
    strip = subject.bundle.settings.strip
    assert strip is not None
    limits, frames = Limits(strip.threshold_bits, found.threshold), scenes.frames
    flagged = (found.clean.p_value < limits.p_value).reshape(-1, frames)
    for octaves, stay in product(OCTAVES, STAYS):
        rule = EvidenceRule(combined_octaves=octaves)
        clean = still_false_alarms(found.clean, frames, limits, rule, stay, Stream().probes_per_s)
        alarmed = still_episodes(
            found.clean, found.before, found.attacked, found.reached, frames, limits, rule, stay
        )  # fmt: skip
        in_time = wilson(alarmed.in_time, len(alarmed.probes))
        rows.append(
            StillRow(
                model=subject.name,
                octaves=octaves,
                stay=stay,
                scenes=len(flagged),
                flagged_always=float(flagged.all(1).mean()),
                false_alarms=clean.of_scenes.value,
                false_alarms_low=clean.of_scenes.low,
                false_alarms_high=clean.of_scenes.high,
                a_year=clean.a_year.value, a_year_low=clean.a_year.low, a_year_high=clean.a_year.high,
                episodes=len(alarmed.probes),
                median_probes=alarmed.quantile(0.5),
                alarmed=in_time.value, alarmed_low=in_time.low, alarmed_high=in_time.high,
                alarmed_ever=float(np.isfinite(alarmed.probes).mean()),
            )
        )  # fmt: skip
    return rows
