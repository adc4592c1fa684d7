"""False alarms of a camera in a year, by multilevel splitting: alarms are too rare to be waited for.

The camera shows a clean picture drawn at random in each probe. A sum that reaches its limit first passes the levels
below it. Each level's share of passages is estimated from the states in which earlier paths entered the level before,
and the rate of alarms is the product (Kahn and Harris 1951; L'Ecuyer, Le Gland, Lezaud and Tuffin 2009). The states are
the tracks of `schemas.evidence.track`, which applies its own rule.

Scores deeper than any measured one may exist. With n pictures, their share is below 3 / n at a confidence of 95 %. The
bound gives this share of the probes the deepest possible score.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from lab.evidence.scores import Scores
from lab.strip.disagreement import Fused
from schemas.evidence.alarms import judged_by, no_classes
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Probe, Track, advance

LEVELS: Final = 6
"""Levels of the sum, the alarm included."""
PATH: Final = 20_000
"""Probes of the path that enters the first level."""
TRIALS: Final = 500
"""Continuations from each level."""
UNSEEN: Final = -math.log(0.05)
"""Expected number of pictures of an unseen kind among n, if a sample of n has none with a probability of 5 %."""
YEAR_S: Final = 365.25 * 86_400


class Rate(NamedTuple):
    """False alarms of a camera in a year: the estimate, and the bound that allows for deeper scores."""

    value: float
    bound: float


class Draws:
    """An endless sequence of probes: each is one of `probes`, or with the probability `unseen` the `deepest` one."""

    def __init__(self, probes: Sequence[Probe], deepest: Probe, unseen: float, generator: np.random.Generator) -> None:
        self._probes = [*probes, deepest]
        self._unseen = unseen
        self._generator = generator
        self._next = self._drawn()

    def __call__(self) -> Probe:
        """Return the next probe."""
        return next(self._next)

    def _drawn(self) -> Iterator[Probe]:
        last = len(self._probes) - 1
        while True:
            places = self._generator.integers(0, last, PATH)
            places[self._generator.random(PATH) < self._unseen] = last
            yield from map(self._probes.__getitem__, places.tolist())


def false_alarms(
    clean: Scores, limits: Fused, rule: EvidenceRule, kind: str, probes_per_s: float, *, seed: int = 0
) -> Rate:
    """Return the rate of the alarms of `kind` on a camera with a baseline that shows these clean pictures."""
    value, bound = (
        in_a_year(clean, limits, rule, kind, probes_per_s, unseen=unseen, seed=seed)
        for unseen in (0.0, min(1.0, UNSEEN / len(clean)))
    )
    # Both are estimates: chance must not put the bound below the value.
    return Rate(value, max(value, bound))


def in_a_year(
    clean: Scores,
    limits: Fused,
    rule: EvidenceRule,
    kind: str,
    probes_per_s: float,
    *,
    unseen: float = 0.0,
    seed: int = 0,
) -> float:
    """Return the estimate of `false_alarms` if a share `unseen` of the probes has the deepest possible score."""
    own = judged_by(kind, _deepest(limits), rule).rule
    some, (deepest,) = (
        [judged_by(kind, each, rule).probe for each in probes] for probes in (clean.probes(limits), [_deepest(limits)])
    )
    generator = np.random.default_rng(seed)
    return probes_per_s * YEAR_S * alarm_rate(Draws(some, deepest, unseen, generator), own, generator)


def _deepest(limits: Fused) -> Probe:
    return Probe(0, 0.0, limits.strip_bits, True, 0, 0.0, limits.agreement)


def alarm_rate(draw: Draws, rule: EvidenceRule, generator: np.random.Generator) -> float:
    """Return the alarms for each probe of a camera with a baseline whose probes are `draw()`."""
    entered, rate = _entrances(draw, rule)
    for level in range(2, LEVELS + 1):
        if not entered:
            return 0.0
        risen = []
        for start in generator.integers(0, len(entered), TRIALS).tolist():
            end = _risen(entered[start], draw, rule, rule.sum.limit * level / LEVELS)
            if end is not None:
                risen.append(end)
        rate *= len(risen) / TRIALS
        entered = risen
    return rate


def _entrances(draw: Draws, rule: EvidenceRule) -> tuple[list[Track], float]:
    """Return the states in which a long path enters the first level, and the number of entrances for each probe.

    An excursion of the sum from zero enters once.
    """
    track, first = Track(), rule.sum.limit / LEVELS
    for _ in range(2 * rule.history_probes + rule.unsettled_probes):
        track, _alarm = advance(track, draw(), rule, no_classes)
    found, inside, probes = list[Track](), track.total > 0, 0
    for _ in range(PATH):
        in_episode = track.calm >= 0
        track, alarm = advance(track, draw(), rule, no_classes)
        probes += not in_episode
        if alarm is None and track.total <= 0:
            inside = False
        elif not inside and not in_episode and (alarm is not None or track.total >= first):
            inside = True
            found.append(track)
    return found, len(found) / max(1, probes)


def _risen(track: Track, draw: Draws, rule: EvidenceRule, level: float) -> Track | None:
    """Return the state in which the sum reaches `level` or raises the alarm; None if it returns to zero before."""
    while track.calm < 0 and track.total < level:
        track, _ = advance(track, draw(), rule, no_classes)
        if track.calm < 0 and track.total <= 0:
            return None
    return track
