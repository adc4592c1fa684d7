"""The rule of evidence: whether what STRIP found on one camera, frame after frame, speaks of a trigger. Pure.

A camera is judged against its own history (Page's cumulative sum, 1954), on the logarithm of the entropy: most of what
clean entropies differ by lies between scenes, and on that scale a trigger makes all of them fall. Each checked frame
adds how far it fell, less an allowance; the sum never falls below zero, and an alarm is raised where it reaches a
limit. `docs/adr/0008-evidence.md` has the reasons and the figures.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from statistics import median
from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import StateError

LEAST_BITS: Final = 2.0**-16
"""Entropies below it are alike: they say more of rounding than of the frame."""
LOW_QUANTILE: Final = 0.05
"""Of a camera's own entropies, the one down to which its spread reaches."""


Classes = Callable[[int, int], Sequence[int]]
"""The verdicts on all frames of a camera from one sequence number to another, both included."""


class SumRule(BaseModel):
    """How the sum of one kind of frame moves: by what a frame says less `allowance`, within `-fall` and `rise`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allowance: float
    rise: float = Field(gt=0)
    fall: float = Field(gt=0)
    limit: float = Field(gt=0)
    stranger: float = Field(default=0.0, ge=0)
    """Octaves below the threshold from which on frames of a camera without a baseline count."""


class WholeRule(SumRule):
    """Whole frames show a trigger undamaged: they count by their depth in octaves.

    It is the smaller of two: how far the entropy lies below the threshold, and how far below the camera's own median
    less `spreads` of its spread.
    """

    spreads: float = Field(default=2.0, ge=0)
    least_spread: float = Field(default=0.15, gt=0)
    passing: float = Field(default=0.0, ge=0)
    """What a camera that passes scenes is allowed on top, in octaves: one scene in some hundred lies deep."""
    passing_turns: float = Field(default=0.08, gt=0, le=1)
    """Such a camera is known by its verdict, which turns at this share of its frames or more."""


class DroppedRule(SumRule):
    """Frames with dropped pixels show little of a trigger, and each another part: they count by how unusual they are.

    That is how many of the camera's own spreads the entropy has fallen by, and how often the verdict turns from one
    frame to the next, as it does while a trigger works under some masks only. Something that passes turns it twice.
    """

    least_spread: float = Field(default=0.06, gt=0)
    turn: float = Field(default=3.5, ge=0)
    """What a turn of the verdict adds at most, the less the more often the camera's verdict turns anyway."""
    turn_rate: float = Field(default=0.35, gt=0, lt=1)
    """The share of frames at which the verdict turns before a trigger."""
    recent_frames: int = Field(default=12, ge=1)
    free_turns: int = Field(default=3, ge=0)
    """A turn adds nothing unless there were so many among the `recent_frames` before it."""


class ComposedRule(BaseModel):
    """Frames that were composed count as whole ones do, but for what a camera is allowed.

    On them the verdict turns with the mask as well, so a camera that passes scenes is known by how many classes it
    names, not by its turns. Before one scene a trigger need not be as deep.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    allowance: float = 0.1
    """Before one scene, once there is a baseline; a camera that passes scenes is allowed what it is on whole frames."""
    own: float = Field(default=0.4, ge=0, le=1)
    """Before one scene, the share that counts of how much farther a frame lies below the camera's own baseline than
    below the threshold: a little above the threshold is evidence as well, if all before it was far above."""
    passing_others: float = Field(default=0.3, gt=0, le=1)
    """A camera that passes scenes: this share of its verdicts, or more, is none of its two most frequent ones."""


class EvidenceRule(BaseModel):
    """When checked frames of a camera are evidence of a trigger; a missing frame is waited for `patience_s` at most."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    whole: WholeRule = WholeRule(allowance=0.25, rise=5, fall=2, limit=6, passing=1.75)
    composed: ComposedRule = ComposedRule()
    dropped: DroppedRule = DroppedRule(allowance=1.6, rise=2, fall=0.25, limit=9, stranger=0.5)
    baseline_probes: int = Field(default=12, ge=1)
    """Checked frames from which on there is a baseline."""
    history_probes: int = Field(default=48, ge=1, le=1000)
    """Checked frames that are kept for it, the newest ones."""
    unsettled_probes: int = Field(default=8, ge=0)
    """Of those, the newest, which it is not taken from."""
    calm_probes: int = Field(default=5, ge=1)
    """After an alarm, so many frames in a row that are not suspect end the episode; until then there is no other."""
    stranger_depth: float = Field(default=5.0, ge=0)
    """Octaves below the threshold at which a camera that was suspect from its first frame needs no other evidence."""
    flip_frames: int = Field(default=12, ge=1)
    """Of a camera that was suspect from its first frame on: verdicts from which on their flips count."""
    flip_share: float = Field(default=0.08, ge=0, le=1)
    """The share of them that must differ from the most frequent one: a clean scene keeps its class under all masks."""
    stranger_frames: int = Field(default=60, ge=1)
    """Verdicts after which such a camera is taken to look at a clean scene of low entropy; or after as many checked
    frames as are kept."""
    patience_s: float = Field(default=5.0, ge=0)


class Probe(NamedTuple):
    """What STRIP and the classifier found in one checked frame."""

    seq: int
    entropy_bits: float
    threshold_bits: float
    flagged: bool
    whole: bool
    """Sent whole, or composed."""
    class_id: int
    composed: bool = False
    """What it dropped was filled with the camera's recent pixels."""

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
    """Whether its verdict differed from that of the frame before, composed ones left out: those turn with the mask."""
    class_id: int


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
    """The verdict on the last frame that was not composed, -1 before the first."""
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


def gain(track: Track, probe: Probe, rule: EvidenceRule) -> float:
    """What `probe` adds to the sum of `track`."""
    kind = _kind(rule, probe.whole)
    base = track.baseline(rule)
    allowance, turns = kind.allowance, 0.0
    if base is None:
        said = probe.depth - kind.stranger
    elif probe.whole:
        middle, spread = base
        fallen = middle - rule.whole.spreads * max(spread, rule.whole.least_spread) - probe.octaves
        said = min(probe.depth, fallen)
        passing = _passing(track, probe.composed, rule)
        if probe.composed:
            said += (1 - passing) * rule.composed.own * (fallen - said)
            allowance += (1 - passing) * (rule.composed.allowance - allowance)
        allowance += passing * rule.whole.passing
    else:
        middle, spread = base
        said = (middle - probe.octaves) / max(spread, rule.dropped.least_spread)
        turns = _turn(track, probe, rule.dropped)
    return max(-kind.fall, min(kind.rise, said - allowance)) + turns


def _passing(track: Track, composed: bool, rule: EvidenceRule) -> float:
    """How far the history of `track`, which has one, is that of a camera that passes scenes, 0 to 1."""
    frames = len(track.history)
    if not composed:
        return min(1.0, sum(each.turned for each in track.history) / frames / rule.whole.passing_turns)
    classes = Counter(each.class_id for each in track.history)
    others = frames - sum(count for _, count in classes.most_common(2))
    return min(1.0, others / frames / rule.composed.passing_others)


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
        turned = not each.composed and before not in (-1, each.class_id)
        history.append(Past(each.octaves, turned, each.class_id))
        before = _verdict(each, before)
    return tuple(history[-rule.history_probes :])


def _verdict(probe: Probe, before: int) -> int:
    """The verdict that the next one is compared with."""
    return before if probe.composed else probe.class_id


def step(track: Track, probe: Probe, rule: EvidenceRule) -> tuple[Track, Alarm | None]:
    """The track after the next frame, and the alarm that it raises."""
    added = gain(track, probe, rule)
    verdict = _verdict(probe, track.class_id)
    if track.calm >= 0:
        calm = track.calm + 1 if added < 0 else 0
        ended = calm >= rule.calm_probes
        return track._replace(calm=-1 if ended else calm, last=probe.seq, class_id=verdict), None
    total = track.total + added
    if total <= 0:
        # The first of a run turned, or not, from the last before it, which is in the history already.
        start = track._replace(class_id=track.run_from if track.run else track.class_id)
        return Track(_learnt(start, (*track.run, probe), rule), (), 0.0, probe.seq, -1, verdict), None
    run = (*track.run, probe)[-rule.history_probes :]
    run_from = track.run_from if track.run else track.class_id
    if total < _kind(rule, probe.whole).limit:
        return Track(track.history, run, total, probe.seq, -1, verdict, run_from), None
    base = track.baseline(rule)
    alarm = Alarm(run, total, None if base is None else 2.0 ** base[0])
    return Track(track.history, (), 0.0, probe.seq, 0, verdict), alarm


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


_TRACK: Final = struct.Struct("<HHdqiqq")
_PAST: Final = struct.Struct("<d?I")
_PROBE: Final = struct.Struct("<QffBI")


def pack_probes(probes: Iterable[Probe]) -> bytes:
    """Probes as the database keeps them."""
    return b"".join(
        _PROBE.pack(
            each.seq, each.entropy_bits, each.threshold_bits,
            each.flagged | each.whole << 1 | each.composed << 2, each.class_id,
        )
        for each in probes
    )  # fmt: skip


def unpack_probes(data: bytes) -> tuple[Probe, ...]:
    """The inverse of `pack_probes`."""
    return tuple(
        Probe(seq, entropy, threshold, bool(flags & 1), bool(flags & 2), class_id, bool(flags & 4))
        for seq, entropy, threshold, flags, class_id in _PROBE.iter_unpack(data)
    )


def pack_track(track: Track) -> bytes:
    """A track as the database keeps it."""
    head = _TRACK.pack(
        len(track.history), len(track.run), track.total, track.last, track.calm, track.class_id, track.run_from
    )
    return head + b"".join(_PAST.pack(*each) for each in track.history) + pack_probes(track.run)


def unpack_track(data: bytes) -> Track:
    """The inverse of `pack_track`; nothing is a track that has seen nothing. StateError for what it did not write."""
    if not data:
        return Track()
    try:
        known, running, total, last, calm, class_id, run_from = _TRACK.unpack_from(data)
        until = _TRACK.size + _PAST.size * known
        history = tuple(Past(*each) for each in _PAST.iter_unpack(data[_TRACK.size : until]))
        run = unpack_probes(data[until:])
    except struct.error as error:
        raise StateError(f"expected a track of evidence in the database: {error}") from None
    if len(history) != known or len(run) != running:
        raise StateError(f"expected a track of evidence with {known} frames and {running} in its run, got fewer")
    return Track(history, run, total, last, calm, class_id, run_from)
