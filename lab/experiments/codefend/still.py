"""Cameras that look at one scene for many probes, on the backdoored models, judged by all statistics together."""

from __future__ import annotations

from itertools import product
from typing import Final, NamedTuple

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


class Watch(NamedTuple):
    """The scenes of a camera, `stay` probes of each: new ones, or `views` that it goes round."""

    stay: int
    views: int = 0


A_MINUTE: Final = Watch(15)
"""A new scene about every minute, at the usual rate."""
TEN_MINUTES: Final = Watch(150)
FOUR_VIEWS: Final = Watch(15, 4)
"""The same four scenes in turn, about a minute each."""
WATCHES: Final = (Watch(1), A_MINUTE, TEN_MINUTES, FOUR_VIEWS)

PROBES: Final = 1_200_000
"""Clean probes that are simulated."""


def still(subject: Subject, scenes: Scenes, cache: Cache) -> list[StillRow]:
    """Return a row for each of `WATCHES`, with the evidence of one scene limited and without."""
    found, rows, rule = still_scores(subject, scenes, cache), list[StillRow](), EvidenceRule()
    strip = subject.bundle.settings.strip
    assert strip is not None
    limits = Limits(strip.threshold_bits, found.threshold)
    flagged = (found.clean.scores.p_value < limits.p_value).reshape(-1, scenes.frames)
    for limited, (stay, views) in product((True, False), WATCHES):
        clean, before, attacked = (
            each if limited else each._replace(coarse=None) for each in (found.clean, found.before, found.attacked)
        )
        # At one probe a scene, so few scenes show no rate: the table of simulated cameras has an estimate.
        probes = PROBES if stay > 1 else 1
        false = still_false_alarms(clean, limits, rule, stay, Stream().probes_per_s, views=views, probes=probes)
        alarmed = still_episodes(clean, before, attacked, found.reached, limits, rule, stay, views=views)
        in_time = wilson(alarmed.in_time, len(alarmed.probes))
        rows.append(
            StillRow(
                model=subject.name,
                limited=limited,
                stay=stay,
                views=views,
                scenes=len(flagged),
                flagged_always=float(flagged.all(1).mean()),
                false_alarms=false.of_scenes.value,
                false_alarms_low=false.of_scenes.low,
                false_alarms_high=false.of_scenes.high,
                a_year=false.a_year.value, a_year_low=false.a_year.low, a_year_high=false.a_year.high,
                episodes=len(alarmed.probes),
                median_probes=alarmed.quantile(0.5),
                alarmed=in_time.value, alarmed_low=in_time.low, alarmed_high=in_time.high,
                alarmed_ever=float(np.isfinite(alarmed.probes).mean()),
            )
        )  # fmt: skip
    return rows
