"""The rate of alarms that are too rare to be waited for: fixed-effort multilevel splitting, with a 95 % interval.

A sum that reaches its limit first passes the levels below it. Each level is tried a fixed number of times, equally
often from each state in which earlier paths entered the level before. The product of the shares of passages estimates
the rate without bias (Garvels and Kroese 1998; L'Ecuyer, Demers and Tuffin 2007). Passages of one splitting depend on
each other, so the error comes from independent repetitions of the whole. The states are the tracks of
`schemas.evidence.track`, which applies its own rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from lab.statistics import Interval, log_interval
from schemas.evidence.alarms import no_classes
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Probe, Track, advance

LEVELS: Final = 6
"""Levels of the sum, the alarm included."""
REPETITIONS: Final = 20
"""Independent repetitions."""
PATH: Final = 10_000
"""Probes of the path that enters the first level, in each repetition."""
TRIALS: Final = 1000
"""Continuations from each level, in each repetition."""
FEW: Final = 200
"""Passages of a level, in all repetitions together, below which an estimate rests on too few."""
UNSEEN: Final = -math.log(0.05)
"""Expected number of events among n trials, if n trials have none with a probability of 5 % (the rule of three)."""

Draw = Callable[[], Probe]


class Repetition(NamedTuple):
    """One splitting: the probes of the path outside of episodes, and the passages of each level, the alarm's last."""

    probes: int
    passages: tuple[int, ...]

    def rate(self, levels: int) -> float:
        """Return the passages of the first `levels` levels for each probe."""
        # The power of an int may be a float for mypy; here it is an int.
        return math.prod(self.passages[:levels]) / max(1, self.probes) / TRIALS ** (levels - 1)  # type: ignore[no-any-return]


class Estimate(NamedTuple):
    """Alarms for each probe with a 95 % interval, and the passages of each level in all repetitions together."""

    rate: Interval
    passages: tuple[int, ...]

    @property
    def rests_on_few(self) -> bool:
        """Whether a level has fewer than `FEW` passages."""
        return min(self.passages) < FEW


def alarm_rate(draws: Callable[[np.random.Generator], Draw], rule: EvidenceRule, seed: int) -> Estimate:
    """Return the alarms for each probe of a camera with a baseline. `draws` makes a source of probes."""
    generators = np.random.default_rng(seed).spawn(REPETITIONS)
    return estimate([repetition(draws(each), rule, each) for each in generators])


def estimate(repetitions: Sequence[Repetition]) -> Estimate:
    """Return the mean rate of independent repetitions with its interval.

    If none passes a level, the rate is at most the upper end at the level before, times the rule of three (Hanley and
    Lippman-Hand 1983). Its trials are the probes of the path, or the fewest states of an earlier level that were tried:
    continuations from one state are no independent trials.
    """
    passages = tuple(map(sum, zip(*(each.passages for each in repetitions), strict=True)))
    passed = sum(map(bool, passages))
    if passed == len(passages):
        return Estimate(_interval(repetitions, passed), passages)
    before = _interval(repetitions, passed).high if passed else 1.0
    trials = min(TRIALS * len(repetitions), *passages[:passed]) if passed else sum(each.probes for each in repetitions)
    return Estimate(Interval(0.0, 0.0, before * min(1.0, UNSEEN / max(1, trials))), passages)


def _interval(repetitions: Sequence[Repetition], levels: int) -> Interval:
    return log_interval(np.array([each.rate(levels) for each in repetitions]))


def repetition(draw: Draw, rule: EvidenceRule, generator: np.random.Generator) -> Repetition:
    """Return one splitting of the path of a camera whose probes are `draw()`."""
    entered, probes = _entrances(draw, rule)
    passages = [len(entered)]
    for level in range(2, LEVELS + 1):
        starts = np.resize(generator.permutation(len(entered)), TRIALS).tolist() if entered else []
        ends = [_risen(entered[start], draw, rule, rule.sum.limit * level / LEVELS) for start in starts]
        entered = [end for end in ends if end is not None]
        passages.append(len(entered))
    return Repetition(probes, tuple(passages))


def _entrances(draw: Draw, rule: EvidenceRule) -> tuple[list[Track], int]:
    """Return the states in which a long path enters the first level, and its probes outside of episodes.

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
    return found, probes


def _risen(track: Track, draw: Draw, rule: EvidenceRule, level: float) -> Track | None:
    """Return the state in which the sum reaches `level` or raises the alarm; None if it returns to zero before."""
    while track.calm < 0 and track.total < level:
        track, _ = advance(track, draw(), rule, no_classes)
        if track.calm < 0 and track.total <= 0:
            return None
    return track
