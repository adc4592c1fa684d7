"""The quantities of the rule of evidence, each compared with its docstring."""

from __future__ import annotations

import math
from ctypes import c_float

import pytest

from schemas.evidence.alarms import STRIP, track_probe
from schemas.evidence.rule import EvidenceRule, SumRule
from schemas.evidence.track import LEAST_BITS, Alarm, PastFrame, Probe, Track, advance, flips, gain, step

RULE = EvidenceRule(
    sum=SumRule(allowance=0.25, rise=5, fall=2, limit=6, passing=1.0, passing_turns=0.5),
    baseline_probes=4, history_probes=8, unsettled_probes=2, calm_probes=2,
    stranger_depth=5.0, flip_frames=4, flip_share=0.25, stranger_frames=6,
)  # fmt: skip
THRESHOLD = 2.0**-3


def probe(octaves: float, seq: int = 10, class_id: int = 0) -> Probe:
    return Probe(seq, 2.0**octaves, THRESHOLD, octaves < -3, class_id)


def past(*octaves: float, turned: tuple[int, ...] = ()) -> tuple[PastFrame, ...]:
    return tuple(PastFrame(each, place in turned) for place, each in enumerate(octaves))


def test_entropies_are_judged_in_octaves_with_a_lower_limit() -> None:
    found = Probe(0, 0.25, 0.5, True, 0)
    assert (found.octaves, found.depth) == (-2.0, 1.0)
    assert Probe(0, 0.0, 0.0, True, 0).octaves == math.log2(LEAST_BITS) == -16
    assert Probe(0, 0.0, 0.0, True, 0).depth == 0.0


def test_the_cameras_threshold_may_lie_above_or_below_the_frames() -> None:
    found = Probe(0, 0.25, 0.125, True, 0)
    assert found.of_entropy() == found._replace(flagged=False)
    for octaves, depth in ((2.0, 1.0), (-1.0, -2.0)):
        moved = track_probe(STRIP, found, EvidenceRule(entropy_octaves=octaves)).probe
        assert (moved.depth, moved.flagged) == (depth, False)
    # The database stores single precision.
    assert found._replace(threshold_bits=0.1).of_entropy(1.0).threshold_bits == c_float(0.2).value


def test_the_baseline_is_the_median_and_the_low_tail_of_settled_frames() -> None:
    assert Track(past(-1, -1, -1)).baseline(RULE) is None
    assert Track(past(-1, -2, -1, -1)).baseline(RULE) == (-1.0, 1.0)
    # Of five frames the newest two are unsettled, but four are needed.
    assert Track(past(0, 0, 0, 0, -9)).baseline(RULE) == (0.0, 0.0)
    # Of eight, the first six.
    assert Track(past(0, 1, 2, 3, 4, 5, -9, -9)).baseline(RULE) == (2.5, 2.5)
    deep = past(*range(40))
    assert Track(deep).baseline(RULE.model_copy(update={"history_probes": 40})) == (18.5, 18.5 - 1)


def test_the_level_is_the_fraction_of_the_limit_and_one_during_an_episode() -> None:
    assert Track(total=3.0).level(RULE) == 0.5
    assert Track(total=7.0).level(RULE) == 1.0
    assert [Track(calm=calm).level(RULE) for calm in (-1, 0, 1)] == [0.0, 1.0, 1.0]


def test_a_camera_without_a_baseline_is_judged_by_its_depth() -> None:
    assert gain(Track(), probe(-5), RULE) == 2 - 0.25
    assert gain(Track(), probe(-30), RULE) == 5.0
    assert gain(Track(), probe(9), RULE) == -2.0


def test_a_frame_counts_with_the_smaller_of_its_depth_and_its_fall() -> None:
    still = Track(past(-2, -2, -2, -2))
    # Two spreads of the least allowed size, .15, below the median of -2.
    assert gain(still, probe(-5), RULE) == pytest.approx(2 - 0.25)
    low = Track(past(-4, -4, -4, -4))
    assert gain(low, probe(-5), RULE) == pytest.approx(-4 - 0.3 + 5 - 0.25)
    wide = Track(past(-4, -4, -4, -5))
    assert gain(wide, probe(-7), RULE) == pytest.approx(-4 - 2 + 7 - 0.25)


def test_a_camera_with_changing_verdicts_has_a_larger_allowance() -> None:
    once = Track(past(-2, -2, -2, -2, turned=(1,)))
    often = Track(past(-2, -2, -2, -2, turned=(1, 2, 3)))
    assert gain(once, probe(-5), RULE) == pytest.approx(2 - 0.25 - 0.5 * 1.0)
    assert gain(often, probe(-5), RULE) == pytest.approx(2 - 0.25 - 1.0)


def test_a_calm_frame_enters_the_history_and_another_the_run() -> None:
    calm, none = step(Track(), probe(-1, 7, 3), RULE)
    assert (calm, none) == (Track((PastFrame(-1.0, False),), (), 0.0, 7, -1, 3), None)
    risen, none = step(calm, probe(-4, 8, 4), RULE)
    assert none is None
    assert risen == Track(calm.history, (probe(-4, 8, 4),), 0.75, 8, -1, 4, run_from=3)
    again, _ = step(risen, probe(-4, 9, 5), RULE)
    assert (again.run, again.total, again.run_from) == ((*risen.run, probe(-4, 9, 5)), 1.5, 3)
    back, _ = step(again, probe(0, 10, 5), RULE)
    assert back.history == (
        PastFrame(-1.0, False), PastFrame(-4.0, True), PastFrame(-4.0, True), PastFrame(0.0, False),
    )  # fmt: skip
    assert back == Track(back.history, last=10, class_id=5)


def test_the_history_keeps_its_distance_from_the_threshold_of_another_network() -> None:
    track = Track(past(-1, -4, turned=(1,)))
    first = track.with_network(THRESHOLD)
    assert first == track._replace(network_bits=THRESHOLD)
    other = first.with_network(4 * THRESHOLD)
    assert other == Track(past(1, -2, turned=(1,)), network_bits=4 * THRESHOLD)
    assert other.with_network(THRESHOLD) == first
    assert [each.octaves for each in first.with_network(0.0).history] == [-14.0, -16.0]
    assert [each.octaves for each in first.with_network(2.0**127).history] == [128.0, 126.0]


def test_the_history_and_the_run_keep_the_newest_frames() -> None:
    track = Track()
    for seq in range(20):
        track, _ = step(track, probe(-1 - seq / 100, seq), RULE)
    assert [round(-100 * each.octaves) - 100 for each in track.history] == list(range(12, 20))
    slow = EvidenceRule(sum=SumRule(allowance=0.25, rise=0.1, fall=2, limit=6), history_probes=8)
    for seq in range(20, 40):
        track, _ = step(track, probe(-9, seq), slow)
    assert [each.seq for each in track.run] == list(range(32, 40))


def test_an_alarm_carries_run_sum_and_baseline_and_starts_an_episode() -> None:
    track = Track(past(-2, -2, -2, -2), last=3, class_id=0)
    first, none = step(track, probe(-9, 4, 1), RULE)
    assert none is None
    second, alarm = step(first, probe(-9, 5, 1), RULE)
    assert alarm == Alarm((probe(-9, 4, 1), probe(-9, 5, 1)), 10.0, 0.25)
    assert second == Track(track.history, (probe(-9, 5, 1),), 0.0, 5, 0, 1)


def test_a_sum_exactly_at_the_limit_is_an_alarm() -> None:
    near = Track(past(-2, -2, -2, -2), run=(probe(-9, 1),), total=6 - 1.75)
    assert gain(near, probe(-5, 2), RULE) == pytest.approx(1.75)
    assert step(near, probe(-5, 2), RULE)[1] is not None


def test_an_episode_ends_after_enough_consecutive_calm_frames() -> None:
    track = Track(past(-2, -2, -2, -2), last=3, calm=0, class_id=1)
    calms = []
    for seq, octaves in ((4, -1), (5, -9), (6, -1), (7, -1)):
        track, alarm = step(track, probe(octaves, seq, 2), RULE)
        assert alarm is None
        calms.append((track.calm, track.last, track.class_id, track.run))
    assert calms == [(1, 4, 2, ()), (0, 5, 2, ()), (1, 6, 2, ()), (-1, 7, 2, ())]


def test_flips_are_the_fraction_of_verdicts_other_than_the_most_frequent_one() -> None:
    assert [flips(classes) for classes in ([], [3], [3, 3, 4, 3], [1, 2, 3, 4])] == [0.0, 0.0, 0.25, 0.75]


def without_baseline(count: int, octaves: float = -5.0, first: int = 0) -> Track:
    """Return a camera without a baseline, just below its limit after `count` frames."""
    run = tuple(probe(octaves, first + seq, 2) for seq in range(count))
    return Track(run=run, total=5.9, last=first + count - 1, class_id=2, run_from=1)


def test_a_camera_without_a_baseline_alarms_if_its_verdicts_flip() -> None:
    requested: list[tuple[int, int]] = []

    def classes(first: int, last: int) -> list[int]:
        requested.append((first, last))
        return [2, 2, 2, 4]

    after, alarm = advance(without_baseline(3, first=7), probe(-5, 10, 2), RULE, classes)
    assert alarm is not None
    assert alarm.baseline_bits is None
    assert after.calm == 0
    assert requested == [(7, 10)]


@pytest.mark.parametrize(
    ("octaves", "alarmed"), [(-8.0, True), (-7.9, False)]
)  # five octaves below the threshold, or nearly
def test_a_camera_without_a_baseline_far_below_the_threshold_alarms_without_flips(
    octaves: float, alarmed: bool
) -> None:
    after, alarm = advance(without_baseline(3, octaves), probe(octaves, 3, 2), RULE, lambda *_: [2] * 4)
    assert (alarm is not None) == alarmed
    assert after.calm == (0 if alarmed else -1)


@pytest.mark.parametrize("seen", [[2, 4, 4], [2, 2, 2, 2], [2, 2, 2, 2, 4]])
def test_a_camera_without_a_baseline_waits_at_its_limit_while_verdicts_or_flips_are_few(seen: list[int]) -> None:
    before = without_baseline(3)
    after, alarm = advance(before, probe(-5, 3, 2), RULE, lambda *_: seen)
    assert alarm is None
    assert after == Track((), (*before.run, probe(-5, 3, 2)), 6.0, 3, -1, 2, 1)


@pytest.mark.parametrize(("count", "seen"), [(3, 6), (7, 4)])
def test_a_constant_class_of_long_duration_becomes_a_baseline_of_low_entropy(count: int, seen: int) -> None:
    after, alarm = advance(without_baseline(count), probe(-5, count, 2), RULE, lambda *_: [2] * seen)
    assert alarm is None
    assert after.history == (PastFrame(-5.0, True), *[PastFrame(-5.0, False)] * count)
    assert after == Track(after.history, last=count, class_id=2)
