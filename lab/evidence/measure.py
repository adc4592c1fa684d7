"""The camera's thresholds and their figures: probes until the alarm, and false alarms in a year.

The thresholds of the camera's test differ from those of a frame: evidence adds up over probes. They are chosen on clean
pictures alone, as high as the allowed false alarms permit, and judged on other clean pictures.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from lab.evidence.episodes import EPISODES, Alarmed, Starts, clean_starts, episodes
from lab.evidence.false_alarms import Rate, false_alarms, in_a_year
from lab.evidence.scores import Scores
from lab.statistics import Interval, sum_interval, wilson
from lab.strip.fused import Fused
from schemas.evidence.alarms import DISAGREEMENT, KINDS, STRIP, TYPICALITY
from schemas.evidence.rule import EvidenceRule

FRAMES_PER_S: Final = 5.0
PROBE_SHARE: Final = 0.05
ALARMS: Final = 0.1
"""False alarms of a camera in a year that the choice allows, all statistics together."""
STARTS: Final = 200
"""Simulated starts of a camera without a trigger."""
OCTAVES: Final = tuple(step / 2 for step in range(-16, 17))
"""Candidate distances of the camera's threshold from the frame's."""


@dataclass(frozen=True)
class Stream:
    """A camera's frames per second and the share of them that are probes."""

    frames_per_s: float = FRAMES_PER_S
    probe_share: float = PROBE_SHARE

    @property
    def probes_per_s(self) -> float:
        """Probes per second."""
        return self.frames_per_s * self.probe_share

    @property
    def every(self) -> int:
        """Frames for each probe."""
        return max(1, round(1 / self.probe_share))


class Choice(NamedTuple):
    """A rule, and whether it keeps what is allowed on the pictures that chose it. The usual rule is not chosen."""

    rule: EvidenceRule
    kept: bool = True


@dataclass(frozen=True)
class Found:
    """The figures of one rule: episodes after a baseline and from the first frame on, and false alarms by kind."""

    choice: Choice
    after_baseline: Alarmed
    from_start: Alarmed
    rates: dict[str, Rate]
    starts: Starts
    allowed: float
    """False alarms in a year that the choice allows."""

    def alarmed(self, kind: str | None = None) -> Interval:
        """Return the share of episodes with an alarm in time, after a baseline."""
        return wilson(self.after_baseline.in_time(kind), len(self.after_baseline.either))

    @property
    def clean_starts(self) -> Interval:
        """Share of clean starts with an alarm."""
        return wilson(int(self.starts.either.sum()), len(self.starts.either))

    @property
    def rate(self) -> Interval:
        """False alarms of all kinds in a year."""
        return sum_interval([each.measured.rate for each in self.rates.values()])

    @property
    def bound(self) -> float:
        """Bound of the false alarms of all kinds in a year."""
        return sum(each.bound for each in self.rates.values())

    @property
    def exceeds(self) -> bool:
        """Whether the estimated false alarms are more than allowed, here or on the pictures that chose."""
        return not self.choice.kept or self.rate.value > self.allowed

    @property
    def rests_on_few(self) -> bool:
        """Whether an estimate or a bound rests on too few passages."""
        return any(each.rests_on_few for each in self.rates.values())

    def figures(self) -> dict[str, object]:
        """Return the figures of `pointillist lab evidence --json`."""
        share, rate = self.alarmed(), self.rate
        start = wilson(self.from_start.in_time(), len(self.from_start.either))
        return {
            "entropy_octaves": self.choice.rule.entropy_octaves,
            "disagreement_octaves": self.choice.rule.disagreement_octaves,
            "typicality_octaves": self.choice.rule.typicality_octaves,
            "median_probes": self.after_baseline.quantile(0.5),
            "p95_probes": self.after_baseline.quantile(0.95),
            "alarmed": share.value,
            "alarmed_interval": [share.low, share.high],
            **{f"alarmed_{kind}": self.alarmed(kind).value for kind in KINDS},
            "alarmed_from_start": start.value,
            "alarmed_from_start_interval": [start.low, start.high],
            "alarmed_clean_starts": self.clean_starts.value,
            "false_alarms": rate.value,
            "false_alarms_interval": [rate.low, rate.high],
            "false_alarms_bound": self.bound,
            **{f"false_alarms_{kind}": each.measured.rate.value for kind, each in self.rates.items()},
            **{f"passages_{kind}": each.measured.passages for kind, each in self.rates.items()},
            **{f"bound_passages_{kind}": each.deeper.passages for kind, each in self.rates.items()},
            "few_passages": self.rests_on_few,
            "exceeds_allowed": self.exceeds,
        }


def kinds_of(limits: Fused) -> tuple[str, ...]:
    """Return the kinds of alerts that these thresholds can raise."""
    used = {STRIP: True, DISAGREEMENT: limits.agreement > 0, TYPICALITY: limits.typicality > 0}
    return tuple(kind for kind in KINDS if used[kind])


def chosen_rule(clean: Scores, limits: Fused, rule: EvidenceRule, stream: Stream, allowed: float = ALARMS) -> Choice:
    """Return `rule` with the highest camera's thresholds that raise at most `allowed` false alarms in a year.

    Each statistic gets an equal part, and none may raise an alarm in `STARTS` clean starts. If even the lowest
    candidate raises more, it is taken, and the choice is not kept.
    """
    kinds = kinds_of(limits)

    def raises_more(kind: str, octaves: float) -> bool:
        tried = _with(rule, kind, octaves)
        if clean_starts(clean, limits, tried, every=stream.every, count=STARTS).alarmed[kind].any():
            return True
        return in_a_year(clean, limits, tried, kind, stream.probes_per_s).rate.value > allowed / len(kinds)

    places = {kind: bisect_left(OCTAVES, True, key=partial(raises_more, kind)) for kind in kinds}
    chosen = rule
    for kind, place in places.items():
        chosen = _with(chosen, kind, OCTAVES[max(0, place - 1)])
    return Choice(chosen, all(places.values()))


def _with(rule: EvidenceRule, kind: str, octaves: float) -> EvidenceRule:
    name = {STRIP: "entropy_octaves", DISAGREEMENT: "disagreement_octaves", TYPICALITY: "typicality_octaves"}[kind]
    return rule.model_copy(update={name: octaves})


def figures_of(
    clean: Scores,
    attacked: Scores,
    limits: Fused,
    choice: Choice,
    stream: Stream,
    *,
    allowed: float = ALARMS,
    count: int = EPISODES,
    seed: int = 0,
) -> Found:
    """Return the figures of a rule on scores that had no part in its choice."""
    rule = choice.rule
    after, start = (
        episodes(clean, attacked, limits, rule, every=stream.every, count=count, seed=seed, **quiet)
        for quiet in ({}, {"quiet": 0})
    )
    rates = {
        kind: false_alarms(clean, limits, rule, kind, stream.probes_per_s, seed=seed + 1) for kind in kinds_of(limits)
    }
    starts = clean_starts(clean, limits, rule, every=stream.every, count=STARTS, seed=seed + 1)
    return Found(choice, after, start, rates, starts, allowed)
