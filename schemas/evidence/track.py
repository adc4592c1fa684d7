"""The rule of evidence: whether what STRIP found on one camera, frame after frame, speaks of a trigger. Pure.

A camera is judged against its own history (Page's cumulative sum, 1954), on the logarithm of the entropy: most of what
clean entropies differ by lies between scenes, and on that scale a trigger makes all of them fall. Each checked frame
adds how far it fell, less an allowance; the sum never falls below zero, and an alarm is raised where it reaches a
limit. `docs/adr/0008-evidence.md` has the reasons and the figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from statistics import median
from typing import Final, NamedTuple

from schemas.evidence.rule import DroppedRule, EvidenceRule, SumRule

LEAST_BITS: Final = 2.0**-16
"""Entropies below it are alike: they say more of rounding than of the frame."""
LOW_QUANTILE: Final = 0.05
"""Of a camera's own entropies, the one down to which its spread reaches."""


Classes = Callable[[int, int], Sequence[int]]
"""The verdicts on all frames of a camera from one sequence number to another, both included."""


class Probe(NamedTuple):
    """What STRIP and the classifier found in one checked frame."""

    seq: int
    entropy_bits: float
    threshold_bits: float
    flagged: bool
    whole: bool
    class_id: int

    @property
    def octaves(self) -> float:
        """The entropy on the scale on which it is judged."""
        return math.log2(max(self.entropy_bits, LEAST_BITS))

    @property
    def depth(self) -> float:
        """Octaves below the threshold."""
        return math.log2(max(self.threshold_bits, LEAST_BITS)) - self.octaves


class Past(NamedTuple):
    """What a baseline remembers of a frame."""

    octaves: float
    turned: bool
    """Whether its verdict differed from that of the frame before."""


class Track(NamedTuple):
    """What is known of one camera's frames of one kind, whole or dropped. A value: a step makes a new one."""

    history: tuple[Past, ...] = ()
    """The frames that the baseline is taken from, oldest first."""
    run: tuple[Probe, ...] = ()
    """The frames since the sum last left zero, the newest `history_probes`: they enter the history when it is back."""
    total: float = 0.0
    last: int = -1
    """Sequence number of the last frame, -1 before the first."""
    calm: int = -1
    """After an alarm, the calm frames so far; -1 when there is no episode."""
    class_id: int = -1
    """The verdict on the last frame, -1 before the first."""
    run_from: int = -1
    """The verdict on the frame before the run."""

    def baseline(self, rule: EvidenceRule) -> tuple[float, float] | None:
        """Median and spread in octaves, the latter down to a low quantile; None while too few frames are known.

        Downwards only and out to the tail: a camera that passes many scenes meets low entropies now and then. The
        newest frames are left out as soon as there are enough without them: a trigger may come into view slowly.
        """
        if len(self.history) < rule.baseline_probes:
            return None
        settled = max(rule.baseline_probes, len(self.history) - rule.unsettled_probes)
        ordered = sorted(each.octaves for each in self.history[:settled])
        middle = median(ordered)
        return middle, middle - ordered[int(LOW_QUANTILE * len(ordered))]

    def level(self, rule: EvidenceRule, whole: bool) -> float:
        """How far the sum is on its way to an alarm, 0 to 1; 1 during an episode."""
        return 1.0 if self.calm >= 0 else min(1.0, self.total / _kind(rule, whole).limit)


class Alarm(NamedTuple):
    """The sum has reached its limit: the frames that brought it there."""

    run: tuple[Probe, ...]
    total: float
    baseline_bits: float | None
    """Median entropy of the camera before; None for one that has no baseline yet."""


def _kind(rule: EvidenceRule, whole: bool) -> SumRule:
    return rule.whole if whole else rule.dropped


def gain(track: Track, probe: Probe, rule: EvidenceRule, *, in_episode: bool = False) -> float:
    """Return what `probe` adds to the sum of `track`.

    A camera that passes scenes is allowed a deep scene now and then, but not in an episode: a frame that would be too
    little to raise an alarm does not show that the trigger has gone.
    """
    kind = _kind(rule, probe.whole)
    base = track.baseline(rule)
    allowance, turns = kind.allowance, 0.0
    if base is None:
        said = probe.depth - kind.stranger
    elif probe.whole:
        middle, spread = base
        fallen = middle - rule.whole.spreads * max(spread, rule.whole.least_spread) - probe.octaves
        said = min(probe.depth, fallen)
        allowance += 0.0 if in_episode else _passing(track, rule) * rule.whole.passing
    else:
        middle, spread = base
        said = (middle - probe.octaves) / max(spread, rule.dropped.least_spread)
        turns = _turn(track, probe, rule.dropped)
    return max(-kind.fall, min(kind.rise, said - allowance)) + turns


def _passing(track: Track, rule: EvidenceRule) -> float:
    """How far the history of `track`, which has one, is that of a camera that passes scenes, 0 to 1."""
    turned = sum(each.turned for each in track.history)
    return min(1.0, turned / len(track.history) / rule.whole.passing_turns)


def _turn(track: Track, probe: Probe, kind: DroppedRule) -> float:
    """What it adds that the verdict turned: the logarithm of how much likelier that is before a trigger."""
    if probe.class_id == track.class_id:
        return 0.0
    classes = [track.run_from, *(each.class_id for each in track.run)]
    turned = [each.turned for each in track.history] + [a not in (-1, b) for a, b in pairwise(classes)]
    if sum(turned[-kind.recent_frames :]) < kind.free_turns:
        return 0.0
    usual = (sum(each.turned for each in track.history) + 1) / (len(track.history) + 2)
    return max(0.0, min(kind.turn, math.log2(kind.turn_rate / usual)))


def _learnt(track: Track, probes: Iterable[Probe], rule: EvidenceRule) -> tuple[Past, ...]:
    """The history with `probes`, which follow each other, at its end."""
    history = list(track.history)
    before = track.class_id
    for each in probes:
        history.append(Past(each.octaves, before not in (-1, each.class_id)))
        before = each.class_id
    return tuple(history[-rule.history_probes :])


def step(track: Track, probe: Probe, rule: EvidenceRule) -> tuple[Track, Alarm | None]:
    """The track after the next frame, and the alarm that it raises."""
    added = gain(track, probe, rule, in_episode=track.calm >= 0)
    if track.calm >= 0:
        calm = track.calm + 1 if added < 0 else 0
        ended = calm >= rule.calm_probes
        return track._replace(calm=-1 if ended else calm, last=probe.seq, class_id=probe.class_id), None
    total = track.total + added
    if total <= 0:
        # The first of a run turned, or not, from the last before it, which is in the history already.
        start = track._replace(class_id=track.run_from if track.run else track.class_id)
        return Track(_learnt(start, (*track.run, probe), rule), (), 0.0, probe.seq, -1, probe.class_id), None
    run = (*track.run, probe)[-rule.history_probes :]
    run_from = track.run_from if track.run else track.class_id
    if total < _kind(rule, probe.whole).limit:
        return Track(track.history, run, total, probe.seq, -1, probe.class_id, run_from), None
    base = track.baseline(rule)
    alarm = Alarm(run, total, None if base is None else 2.0 ** base[0])
    return Track(track.history, (), 0.0, probe.seq, 0, probe.class_id), alarm


def flips(classes: Sequence[int]) -> float:
    """The share of verdicts that differ from the most frequent one; 0 of none."""
    return 1 - max(map(classes.count, set(classes))) / len(classes) if classes else 0.0


def advance(track: Track, probe: Probe, rule: EvidenceRule, classes: Classes) -> tuple[Track, Alarm | None]:
    """`step`, and beyond it what is asked of a camera that has no baseline yet when it raises an alarm.

    A clean scene of low entropy looks the same from the first frame on, but keeps its class under all masks. So such an
    alarm stands when the verdicts flip, as under a trigger that loses pixels in every frame and with some masks its
    hold, or when the frames lie far deeper than clean scenes do. While the verdicts are too few the sum stays at its
    limit; a camera that has kept its class for long enough is taken to look at a scene of low entropy, which becomes
    its baseline.
    """
    after, alarm = step(track, probe, rule)
    if alarm is None or alarm.baseline_bits is not None:
        return after, alarm
    seen = classes(alarm.run[0].seq, probe.seq)
    deep = median(each.depth for each in alarm.run) >= rule.stranger_depth
    if deep or (len(seen) >= rule.flip_frames and flips(seen) >= rule.flip_share):
        return after, alarm
    if len(seen) < rule.stranger_frames and len(alarm.run) < rule.history_probes:
        limit = _kind(rule, probe.whole).limit
        return Track(track.history, alarm.run, limit, probe.seq, -1, after.class_id, track.run_from), None
    history = _learnt(track._replace(class_id=track.run_from), alarm.run, rule)
    return Track(history, (), 0.0, probe.seq, -1, after.class_id), None
