"""False alarms of a camera in a year. The camera shows a clean picture drawn at random in each probe.

Scores deeper than any measured one may exist. With n pictures, their share is below 3 / n at a confidence of 95 %. The
bound gives this share of the probes the deepest possible score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from lab.evidence.scores import Limits, Scores
from lab.evidence.splitting import PATH, UNSEEN, Draw, Estimate, alarm_rate
from lab.statistics import Interval
from schemas.evidence.alarms import track_probe
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Probe

YEAR_S: Final = 365.25 * 86_400


class Rate(NamedTuple):
    """False alarms of a camera in a year: for the measured scores, and with deeper ones among them."""

    measured: Estimate
    deeper: Estimate

    @property
    def bound(self) -> float:
        """The upper end with deeper scores. Both are estimates: chance must not put it below the measured one."""
        return max(self.measured.rate.value, self.deeper.rate.high)

    @property
    def rests_on_few(self) -> bool:
        """Whether a level of either has too few passages."""
        return self.measured.rests_on_few or self.deeper.rests_on_few


def drawn(probes: Sequence[Probe], deepest: Probe, unseen: float, generator: np.random.Generator) -> Draw:
    """Return a source of probes: each is one of `probes`, or with the probability `unseen` the `deepest` one."""

    def endless() -> Iterator[Probe]:
        every, last = [*probes, deepest], len(probes)
        while True:
            places = generator.integers(0, last, PATH)
            places[generator.random(PATH) < unseen] = last
            yield from map(every.__getitem__, places.tolist())

    return endless().__next__


def false_alarms(clean: Scores, limits: Limits, rule: EvidenceRule, probes_per_s: float, *, seed: int = 0) -> Rate:
    """Return the rate of the alarms on a camera with a baseline that shows these clean pictures.

    Deeper scores only add alarms, so the bound also holds for the measured ones.
    """
    measured, deeper = (
        in_a_year(clean, limits, rule, probes_per_s, unseen=unseen, seed=seed)
        for unseen in (0.0, min(1.0, UNSEEN / len(clean)))
    )
    found = Rate(measured, deeper)
    capped = measured.rate._replace(high=min(measured.rate.high, found.bound))
    return found._replace(measured=measured._replace(rate=capped))


def in_a_year(
    clean: Scores,
    limits: Limits,
    rule: EvidenceRule,
    probes_per_s: float,
    *,
    unseen: float = 0.0,
    seed: int = 0,
) -> Estimate:
    """Return the estimate of `false_alarms` if a share `unseen` of the probes has the deepest possible score."""
    extreme = track_probe(limits.kind, Probe(0, 0.0, limits.strip_bits, True, 0, 0.0, limits.p_value), rule)
    probes = [track_probe(limits.kind, each, rule).probe for each in clean.probes(limits)]
    found = alarm_rate(lambda generator: drawn(probes, extreme.probe, unseen, generator), extreme.rule, seed)
    return found._replace(rate=Interval(*(probes_per_s * YEAR_S * each for each in found.rate)))
