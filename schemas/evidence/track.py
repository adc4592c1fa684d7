"""The rule of evidence: does the STRIP entropy of one camera's frames indicate a trigger? Pure functions.

A camera is judged against its own history by Page's cumulative sum (1954), on the logarithm of the entropy. On that
scale, clean entropies differ mostly between scenes, and a trigger lowers all of them. Each checked frame adds its depth
less an allowance. The sum never falls below zero; at its limit it raises an alarm. `docs/adr/0008-evidence.md` and
`docs/adr/0083-evidence-of-a-scene.md` have the reasons and the figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from ctypes import c_float
from statistics import median
from typing import Final, NamedTuple

from schemas.evidence.rule import EvidenceRule, SceneRule, SumRule

LEAST_BITS: Final = 2.0**-16
"""Lower bound of an entropy: below it, rounding outweighs the frame's content."""
OCTAVES: Final = (math.log2(LEAST_BITS), 128.0)
"""Bounds of the logarithm of an entropy, which is a float of four bytes."""
LOW_QUANTILE: Final = 0.05
"""Quantile of a camera's own entropies that marks the lower end of its spread."""
NO_SCENE: Final = -1
"""The scene of a probe whose processor names none: it resembles no other probe."""


Classes = Callable[[int, int], Sequence[int]]
"""A function that returns the verdicts on all frames of a camera between two sequence numbers, both included."""


class Probe(NamedTuple):
    """The results of the statistics and the classifier for one checked frame."""

    seq: int
    entropy_bits: float
    threshold_bits: float
    flagged: bool
    class_id: int
    p_value: float = 0.0
    """Estimated share of clean frames that look at least as unusual, 0 to 1, if `p_value_threshold` is not 0."""
    p_value_threshold: float = 0.0
    statistic: int = 0
    """A `schemas.pointillist_pb2.Statistic`: the one that finds the frame most unusual."""
    scene: int = -1
    """`NO_SCENE`, or the sequence number of the probe with which its scene began. Probes of one scene resemble each
    other."""

    def of_entropy(self, octaves: float = 0.0) -> Probe:
        """Return the probe as STRIP alone judges it, without its scene.

        The camera's threshold lies `octaves` above the frame's.
        """
        found = self._replace(flagged=self.entropy_bits < self.threshold_bits, scene=NO_SCENE)
        if not octaves:
            return found
        return found._replace(threshold_bits=c_float(self.threshold_bits * 2**octaves).value)

    def of_p_value(self, octaves: float) -> Probe:
        """Return the probe as all statistics together judge it, with the p-value in place of the entropy.

        Both are positive, low for a trigger, and compared by their logarithm. The camera's threshold lies `octaves`
        above the frame's.
        """
        return self._replace(
            entropy_bits=self.p_value,
            threshold_bits=c_float(self.p_value_threshold * 2**octaves).value,
            flagged=self.p_value < self.p_value_threshold,
        )

    @property
    def octaves(self) -> float:
        """The entropy in octaves, the scale of all comparisons."""
        return in_octaves(self.entropy_bits)

    @property
    def depth(self) -> float:
        """Octaves below the threshold."""
        return in_octaves(self.threshold_bits) - self.octaves


def in_octaves(bits: float) -> float:
    """Return the logarithm of an entropy or a threshold to base 2."""
    return math.log2(max(bits, LEAST_BITS))


def _moved(octaves: float, by: float) -> float:
    least, most = OCTAVES
    return min(most, max(least, octaves + by))


class PastFrame(NamedTuple):
    """A frame in the history of a baseline."""

    octaves: float
    """Its entropy in octaves, on the scale of the network of the last frame."""
    turned: bool
    """True if its verdict differed from the verdict of the frame before."""
    scene: int = -1
    """The scene of its probe."""


class SceneSum(NamedTuple):
    """The evidence of one scene, in octaves."""

    scene: int
    octaves: float


class Track(NamedTuple):
    """The state of one camera's checked frames. Immutable: each step returns a new one."""

    history: tuple[PastFrame, ...] = ()
    """The newest `history_probes` frames, oldest first. Before them, up to `scenes.probes` older frames of each known
    scene, so that the camera still knows it when it returns."""
    run: tuple[Probe, ...] = ()
    """The newest `history_probes` frames since the sum last left zero; the usual ones enter the history when the sum
    returns to zero. In an episode, the newest frame of the scene that raised the alarm, alone."""
    total: float = 0.0
    last: int = -1
    """Sequence number of the last frame, -1 before the first."""
    calm: int = -1
    """After an alarm, the number of calm frames until now; -1 outside an episode."""
    class_id: int = -1
    """The verdict on the last frame, -1 before the first."""
    run_from: int = -1
    """The verdict on the frame before the run."""
    network_bits: float = 0.0
    """STRIP's threshold of the network of the last frame; 0 before the first, and if p-values are judged."""
    scene_sums: tuple[SceneSum, ...] = ()
    """The evidence of each scene without a baseline of its own: what it has added to the sum, or twice `scenes.limit`
    after an alarm. From `scenes.limit` on, a scene adds nothing. Its usual frames lower the value. At most
    `history_probes` scenes, those that changed last."""

    def with_network(self, bits: float) -> Track:
        """Return the track for frames of a network with this threshold: it has other entropies of the same scenes.

        The history keeps its distance from the threshold.
        """
        if bits == self.network_bits:
            return self
        by = in_octaves(bits) - in_octaves(self.network_bits or bits)
        history = tuple(each._replace(octaves=_moved(each.octaves, by)) for each in self.history)
        return self._replace(history=history, network_bits=bits)

    def baseline(self, rule: EvidenceRule) -> tuple[float, float] | None:
        """Return the median and the spread in octaves; None while there are too few frames.

        The spread reaches down to a low quantile, because a camera that passes many scenes meets low entropies now and
        then. The newest frames are left out once there are enough without them: a trigger may come into view slowly.
        """
        newest = [each.octaves for each in self.newest(rule)]
        return _baseline(newest, rule.baseline_probes, LOW_QUANTILE, rule)

    def newest(self, rule: EvidenceRule) -> tuple[PastFrame, ...]:
        """Return the newest frames of the history, at most `history_probes`."""
        return self.history[-rule.history_probes :]

    def scene_baseline(self, scene: int, rule: EvidenceRule) -> tuple[float, float] | None:
        """Return the baseline of one scene's frames; None while there are too few, and for `NO_SCENE`."""
        if scene == NO_SCENE:
            return None
        frames = [each.octaves for each in self.history if each.scene == scene]
        return _baseline(frames, rule.scenes.probes, rule.scenes.low_quantile, rule)

    def level(self, rule: EvidenceRule) -> float:
        """Return the sum as a share of its alarm limit, 0 to 1; 1 during an episode."""
        return 1.0 if self.calm >= 0 else min(1.0, self.total / rule.sum.limit)


def _baseline(
    octaves: Sequence[float], least: int, low_quantile: float, rule: EvidenceRule
) -> tuple[float, float] | None:
    if len(octaves) < least:
        return None
    ordered = sorted(octaves[: max(least, len(octaves) - rule.unsettled_probes)])
    middle = median(ordered)
    return middle, middle - ordered[int(low_quantile * len(ordered))]


class Alarm(NamedTuple):
    """An alarm, with the frames that brought the sum to its limit."""

    run: tuple[Probe, ...]
    total: float
    baseline_bits: float | None
    """Median entropy of the camera before the alarm; None without a baseline."""


def gain(track: Track, probe: Probe, rule: EvidenceRule, *, in_episode: bool = False) -> float:
    """Return the amount that `probe` adds to the sum of `track`, before the limit of its scene.

    A camera that moves past scenes may meet a scene of low entropy now and then. The allowance for it ends in an
    episode. A frame too weak to raise an alarm does not prove that the trigger has gone.
    """
    allowance, depth = rule.sum.allowance, probe.depth
    if depth - allowance <= -rule.sum.fall:
        return -rule.sum.fall  # A baseline only lowers the depth.
    limits: SumRule | SceneRule = rule.scenes
    base = track.scene_baseline(probe.scene, rule)
    if base is None:
        limits, base = rule.sum, track.baseline(rule)
    if base is not None:
        middle, spread = base
        depth = min(depth, middle - limits.spreads * max(spread, limits.least_spread) - probe.octaves)
        allowance += 0.0 if in_episode else _passing(track, rule) * rule.sum.passing
    return max(-rule.sum.fall, min(rule.sum.rise, depth - allowance))


def _passing(track: Track, rule: EvidenceRule) -> float:
    """Return the similarity of a camera with a history to one that passes scenes, 0 to 1."""
    newest = track.newest(rule)
    return min(1.0, sum(each.turned for each in newest) / len(newest) / rule.sum.passing_turns)


def _learnt(track: Track, probes: Iterable[Probe], rule: EvidenceRule) -> tuple[PastFrame, ...]:
    """Return the history with the consecutive `probes` appended."""
    history = list(track.history[-rule.history_probes - _reserve(rule) :])
    before = track.class_id
    for each in probes:
        history.append(PastFrame(each.octaves, before not in (-1, each.class_id), each.scene))
        before = each.class_id
        older = len(history) - rule.history_probes
        if older > 0 and (surplus := _surplus(history, older, rule)) is not None:
            del history[surplus]
    return tuple(history)


def _reserve(rule: EvidenceRule) -> int:
    """Return the maximum number of frames older than the newest `history_probes`."""
    return rule.scenes.remembered * rule.scenes.probes


def _surplus(history: Sequence[PastFrame], older: int, rule: EvidenceRule) -> int | None:
    """Return the index of the frame to delete after `history[older - 1]` has left the newest ones; None to keep all."""
    scene, enough = history[older - 1].scene, rule.scenes.probes
    there = [place for place, each in enumerate(history) if each.scene == scene]
    old = sum(place < older for place in there)
    if scene == NO_SCENE or len(there) < enough or old > enough:
        return there[0]
    if older > _reserve(rule):
        return 0
    return None


def _within_scene(track: Track, probe: Probe, added: float, rule: EvidenceRule) -> tuple[float, tuple[SceneSum, ...]]:
    """Return the part of `added` that the limit of the probe's scene leaves, and the parts of all scenes after it.

    A camera without a baseline has no limit: `advance` confirms its alarms otherwise.
    """
    sums = track.scene_sums
    before = next((each.octaves for each in sums if each.scene == probe.scene), 0.0)
    if probe.scene == NO_SCENE or (added <= 0 and not before):
        return added, sums
    if added > 0:
        if track.baseline(rule) is None or track.scene_baseline(probe.scene, rule) is not None:
            return added, sums
        added = min(added, max(0.0, rule.scenes.limit - before))
    others = (each for each in sums if each.scene != probe.scene)
    after = (*others, SceneSum(probe.scene, max(0.0, before + added)))
    return added, after[-rule.history_probes :]


def step(track: Track, probe: Probe, rule: EvidenceRule) -> tuple[Track, Alarm | None]:
    """Return the track after the next frame, and the alarm that the frame raises."""
    added = gain(track, probe, rule, in_episode=track.calm >= 0)
    if track.calm >= 0:
        calm = track.calm + 1 if added < 0 else 0
        scene_sums = _within_scene(track, probe, min(0.0, added), rule)[1]
        following = track._replace(calm=calm, last=probe.seq, class_id=probe.class_id, scene_sums=scene_sums)
        if track.run and probe.scene == track.run[0].scene:
            following = following._replace(run=(probe,))
        if calm >= rule.calm_probes:
            following = _ended(following, rule)
        return following, None
    added, scene_sums = _within_scene(track, probe, added, rule)
    total = track.total + added
    if total <= 0:
        # The history already holds the frame before the run, which decides whether the first frame of the run turned.
        start = track._replace(class_id=track.run_from if track.run else track.class_id)
        history = _learnt(start, [each for each in (*track.run, probe) if _is_learnable(track, each, rule)], rule)
        left = tuple(each for each in scene_sums if each.octaves > rule.scenes.limit)
        following = Track(
            history, last=probe.seq, class_id=probe.class_id, network_bits=track.network_bits, scene_sums=left
        )
        return following, None
    run = (*track.run, probe)[-rule.history_probes :]
    run_from = track.run_from if track.run else track.class_id
    if total < rule.sum.limit:
        following = track._replace(
            run=run, total=total, last=probe.seq, class_id=probe.class_id, run_from=run_from, scene_sums=scene_sums
        )
        return following, None
    base = track.baseline(rule)
    alarm = Alarm(run, total, None if base is None else 2.0 ** base[0])
    raised = tuple(_raised(each.scene, rule) for each in scene_sums if each.octaves > 0)
    following = track._replace(
        run=(probe,), total=0.0, last=probe.seq, calm=0, class_id=probe.class_id, run_from=-1, scene_sums=raised
    )
    return following, alarm


def _raised(scene: int, rule: EvidenceRule) -> SceneSum:
    """Return the evidence of a scene after an alarm: it adds nothing until its usual frames have lowered the value."""
    return SceneSum(scene, 2 * rule.scenes.limit)


def _is_learnable(track: Track, probe: Probe, rule: EvidenceRule) -> bool:
    """Return whether a probe enters the history after a run without an alarm.

    No probe of a scene in `scene_sums` does: each may show a trigger. Of a known scene, only probes that added nothing
    to the sum do.
    """
    if any(each.scene == probe.scene for each in track.scene_sums):
        return False
    return gain(track, probe, rule) <= 0 or track.scene_baseline(probe.scene, rule) is None


def _ended(track: Track, rule: EvidenceRule) -> Track:
    """Return the track after an episode.

    If the scene of the alarm was still unusual when the camera showed it last, it becomes unknown. A view that changed
    for good then raises one alarm, not one at each return.
    """
    changed = {each.scene for each in track.run if gain(track, each, rule, in_episode=True) >= 0} - {NO_SCENE}
    older, history = len(track.history) - rule.history_probes, []
    for place, each in enumerate(track.history):
        if each.scene not in changed:
            history.append(each)
        elif place >= older:
            history.append(each._replace(scene=NO_SCENE))
    others = [each for each in track.scene_sums if each.scene not in changed]
    sums = (*others, *(_raised(scene, rule) for scene in changed))
    return track._replace(history=tuple(history), run=(), calm=-1, scene_sums=sums[-rule.history_probes :])


def flips(classes: Sequence[int]) -> float:
    """Return the share of verdicts that differ from the most frequent one; 0 for an empty sequence."""
    return 1 - max(map(classes.count, set(classes))) / len(classes) if classes else 0.0


def advance(track: Track, probe: Probe, rule: EvidenceRule, classes: Classes) -> tuple[Track, Alarm | None]:
    """Apply `step`, and check an alarm of a camera without a baseline further.

    A clean scene of low entropy looks the same from the first frame on, but keeps its class under all masks. Such an
    alarm is therefore confirmed in two cases. The verdicts may flip, because a trigger that loses pixels fails under
    some masks. Or the entropies may lie far below those of clean scenes.

    While there are too few verdicts, the sum stays at its limit. A camera that keeps its class for long enough counts
    as one with a clean scene of low entropy, which becomes its baseline.
    """
    after, alarm = step(track, probe, rule)
    if alarm is None or alarm.baseline_bits is not None:
        return after, alarm
    seen = classes(alarm.run[0].seq, probe.seq)
    deep = median(each.depth for each in alarm.run) >= rule.stranger_depth
    if deep or (len(seen) >= rule.flip_frames and flips(seen) >= rule.flip_share):
        return after, alarm
    if len(seen) < rule.stranger_frames and len(alarm.run) < rule.history_probes:
        return after._replace(run=alarm.run, total=rule.sum.limit, calm=-1, run_from=track.run_from), None
    history = _learnt(after._replace(class_id=track.run_from), alarm.run, rule)
    return after._replace(history=history, run=(), calm=-1), None
