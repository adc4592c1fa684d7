"""The camera's threshold and its figures: probes until the alarm, and false alarms in a year.

The threshold of the camera's test differs from that of a frame: evidence adds up over probes. It is chosen on clean
pictures alone, as high as the allowed false alarms permit, and judged on other clean pictures.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final, NamedTuple

from lab.evidence.episodes import EPISODES, Alarmed, clean_starts, episodes
from lab.evidence.false_alarms import Rate, false_alarms, in_a_year
from lab.evidence.scores import Limits, Scores
from lab.statistics import Interval, wilson
from schemas.evidence.alarms import COMBINED
from schemas.evidence.rule import EvidenceRule

FRAMES_PER_S: Final = 5.0
PROBE_SHARE: Final = 0.05
ALARMS: Final = 0.1
"""False alarms of a camera in a year that the choice allows."""
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
    """The figures of one rule: episodes after a baseline and from the first frame on, and false alarms."""

    choice: Choice
    kind: str
    """The kind of the alerts."""
    after_baseline: Alarmed
    from_start: Alarmed
    false_alarms: Rate
    clean_starts: Interval
    """Share of clean starts with an alarm."""
    allowed: float
    """False alarms in a year that the choice allows."""

    @property
    def octaves(self) -> float:
        """Octaves of the camera's threshold above the frame's."""
        rule = self.choice.rule
        return rule.combined_octaves if self.kind == COMBINED else rule.entropy_octaves

    @property
    def alarmed(self) -> Interval:
        """Share of episodes with an alarm in time, after a baseline."""
        return wilson(self.after_baseline.in_time, len(self.after_baseline.probes))

    @property
    def alarmed_from_start(self) -> Interval:
        """Share of episodes with an alarm in time, from the first frame on."""
        return wilson(self.from_start.in_time, len(self.from_start.probes))

    @property
    def exceeds(self) -> bool:
        """Whether the estimated false alarms are more than allowed, here or on the pictures that chose."""
        return not self.choice.kept or self.false_alarms.measured.rate.value > self.allowed

    def figures(self) -> dict[str, object]:
        """Return the figures of `pointillist lab evidence --json`."""
        measured, start = self.false_alarms.measured, self.alarmed_from_start
        return {
            "kind": self.kind,
            "octaves": self.octaves,
            "median_probes": self.after_baseline.quantile(0.5),
            "p95_probes": self.after_baseline.quantile(0.95),
            "alarmed": self.alarmed.value,
            "alarmed_interval": [self.alarmed.low, self.alarmed.high],
            "alarmed_from_start": start.value,
            "alarmed_from_start_interval": [start.low, start.high],
            "alarmed_clean_starts": self.clean_starts.value,
            "false_alarms": measured.rate.value,
            "false_alarms_interval": [measured.rate.low, measured.rate.high],
            "false_alarms_bound": self.false_alarms.bound,
            "passages": measured.passages,
            "bound_passages": self.false_alarms.deeper.passages,
            "few_passages": self.false_alarms.rests_on_few,
            "exceeds_allowed": self.exceeds,
        }


def chosen_rule(clean: Scores, limits: Limits, rule: EvidenceRule, stream: Stream, allowed: float = ALARMS) -> Choice:
    """Return `rule` with the highest camera's threshold that raises at most `allowed` false alarms in a year.

    It may raise no alarm in `STARTS` clean starts. If even the lowest candidate raises more, it is taken, and the
    choice is not kept.
    """
    name = "combined_octaves" if limits.kind == COMBINED else "entropy_octaves"

    def with_octaves(octaves: float) -> EvidenceRule:
        return rule.model_copy(update={name: octaves})

    def raises_more(octaves: float) -> bool:
        tried = with_octaves(octaves)
        if clean_starts(clean, limits, tried, every=stream.every, count=STARTS):
            return True
        return in_a_year(clean, limits, tried, stream.probes_per_s).rate.value > allowed

    place = bisect_left(OCTAVES, True, key=raises_more)
    return Choice(with_octaves(OCTAVES[max(0, place - 1)]), place > 0)


def figures_of(
    clean: Scores,
    attacked: Scores,
    limits: Limits,
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
    rate = false_alarms(clean, limits, rule, stream.probes_per_s, seed=seed + 1)
    starts = wilson(clean_starts(clean, limits, rule, every=stream.every, count=STARTS, seed=seed + 1), STARTS)
    return Found(choice, limits.kind, after, start, rate, starts, allowed)
