"""The rule of evidence, quantity by quantity, against what its docstrings say."""

from __future__ import annotations

import math

import pytest

from schemas.evidence.rule import DroppedRule, EvidenceRule, WholeRule
from schemas.evidence.track import LEAST_BITS, Alarm, Past, Probe, Track, advance, flips, gain, step

RULE = EvidenceRule(
    whole=WholeRule(allowance=0.25, rise=5, fall=2, limit=6, stranger=0.0, passing=1.0, passing_turns=0.5),
    dropped=DroppedRule(allowance=1.0, rise=4, fall=0.5, limit=9, stranger=0.5, turn=3.0, turn_rate=0.5, free_turns=1),
    baseline_probes=4, history_probes=8, unsettled_probes=2, calm_probes=2,
    stranger_depth=5.0, flip_frames=4, flip_share=0.25, stranger_frames=6,
)  # fmt: skip
THRESHOLD = 2.0**-3


def whole(octaves: float, seq: int = 10, class_id: int = 0) -> Probe:
    return Probe(seq, 2.0**octaves, THRESHOLD, octaves < -3, True, class_id)


def dropped(octaves: float, seq: int = 10, class_id: int = 0) -> Probe:
    return Probe(seq, 2.0**octaves, THRESHOLD, octaves < -3, False, class_id)


def past(*octaves: float, turned: tuple[int, ...] = ()) -> tuple[Past, ...]:
    return tuple(Past(each, place in turned) for place, each in enumerate(octaves))


def test_entropies_are_judged_in_octaves_and_the_lowest_are_alike() -> None:
    probe = Probe(0, 0.25, 0.5, True, True, 0)
    assert (probe.octaves, probe.depth) == (-2.0, 1.0)
    assert Probe(0, 0.0, 0.0, True, True, 0).octaves == math.log2(LEAST_BITS) == -16
    assert Probe(0, 0.0, 0.0, True, True, 0).depth == 0.0


def test_the_baseline_is_the_median_and_the_low_tail_of_the_settled_frames() -> None:
    assert Track(past(-1, -1, -1)).baseline(RULE) is None
    assert Track(past(-1, -2, -1, -1)).baseline(RULE) == (-1.0, 1.0)
    # Of five frames the newest two are unsettled, but four are needed.
    assert Track(past(0, 0, 0, 0, -9)).baseline(RULE) == (0.0, 0.0)
    # Of eight, the first six.
    assert Track(past(0, 1, 2, 3, 4, 5, -9, -9)).baseline(RULE) == (2.5, 2.5)
    deep = past(*range(40))
    assert Track(deep).baseline(RULE) == (18.5, 18.5 - 1)


def test_the_level_is_the_share_of_the_limit_and_one_during_an_episode() -> None:
    assert Track(total=3.0).level(RULE, True) == 0.5
    assert Track(total=3.0).level(RULE, False) == pytest.approx(1 / 3)
    assert Track(total=7.0).level(RULE, True) == 1.0
    assert [Track(calm=calm).level(RULE, True) for calm in (-1, 0, 1)] == [0.0, 1.0, 1.0]


def test_a_camera_without_a_baseline_is_judged_by_its_depth() -> None:
    assert gain(Track(), whole(-5), RULE) == 2 - 0.25
    assert gain(Track(), dropped(-5), RULE) == 2 - 0.5 - 1.0
    assert gain(Track(), whole(-30), RULE) == 5.0
    assert gain(Track(), whole(9), RULE) == -2.0
    assert gain(Track(), dropped(-30), RULE) == 4.0
    assert gain(Track(), dropped(9), RULE) == -0.5


def test_a_whole_frame_counts_by_the_smaller_of_its_depth_and_its_fall() -> None:
    still = Track(past(-2, -2, -2, -2))
    # Two spreads of the least, .15, below the median of -2.
    assert gain(still, whole(-5), RULE) == pytest.approx(2 - 0.25)
    low = Track(past(-4, -4, -4, -4))
    assert gain(low, whole(-5), RULE) == pytest.approx(-4 - 0.3 + 5 - 0.25)
    wide = Track(past(-4, -4, -4, -5))
    assert gain(wide, whole(-7), RULE) == pytest.approx(-4 - 2 + 7 - 0.25)


def test_a_camera_that_passes_scenes_is_allowed_more_by_how_often_its_verdict_turns() -> None:
    once = Track(past(-2, -2, -2, -2, turned=(1,)))
    often = Track(past(-2, -2, -2, -2, turned=(1, 2, 3)))
    assert gain(once, whole(-5), RULE) == pytest.approx(2 - 0.25 - 0.5 * 1.0)
    assert gain(often, whole(-5), RULE) == pytest.approx(2 - 0.25 - 1.0)


def test_a_dropped_frame_counts_by_the_spreads_that_it_has_fallen_by() -> None:
    still = Track(past(-1, -1, -1, -1))
    assert gain(still, dropped(-1.12), RULE) == pytest.approx(0.12 / 0.06 - 1.0)
    wide = Track(past(-1, -1, -1, -2))
    assert gain(wide, dropped(-3), RULE) == pytest.approx(2 / 1 - 1.0)


def test_a_turn_of_the_verdict_adds_the_less_the_more_usual_it_is() -> None:
    turned = Track(past(-1, -1, -1, -1, -1, -1, turned=(5,)), class_id=0)
    # Two of eight by the rule of succession: log2(.5 / .25) = 1.
    assert gain(turned, dropped(-1, class_id=1), RULE) - gain(turned, dropped(-1), RULE) == pytest.approx(1.0)
    still = Track(past(-1, -1, -1, -1, -1, -1), class_id=0)
    assert gain(still, dropped(-1, class_id=1), RULE) == gain(still, dropped(-1), RULE)
    rarely = Track(past(*[-1.0] * 6, turned=(5,)), class_id=0)
    eager = RULE.model_copy(update={"dropped": RULE.dropped.model_copy(update={"turn": 0.4})})
    assert gain(rarely, dropped(-1, class_id=1), eager) - gain(rarely, dropped(-1), eager) == pytest.approx(0.4)
    usual = Track(past(*[-1.0] * 6, turned=(0, 1, 2, 3, 4, 5)), class_id=0)
    assert gain(usual, dropped(-1, class_id=1), RULE) == gain(usual, dropped(-1), RULE)


def test_turns_in_the_run_count_and_only_the_recent_ones() -> None:
    run = (dropped(-1, 1, 5), dropped(-1, 2, 5))
    began = Track(past(-1, -1, -1, -1), run=run, class_id=5, run_from=4)
    # The first of the run turned from 4 to 5: one of one that is free; one of six by the rule of succession.
    assert gain(began, dropped(-1, 3, 6), RULE) - gain(began, dropped(-1, 3, 5), RULE) == pytest.approx(math.log2(3))
    fresh = began._replace(run_from=-1)
    assert gain(fresh, dropped(-1, 3, 6), RULE) == gain(fresh, dropped(-1, 3, 5), RULE)
    old = Track(past(*[-1.0] * 20, turned=(0,)), class_id=0)
    assert gain(old, dropped(-1, class_id=1), RULE) == gain(old, dropped(-1), RULE)
    edge = Track(past(*[-1.0] * 20, turned=(8,)), class_id=0)
    assert gain(edge, dropped(-1, class_id=1), RULE) > gain(edge, dropped(-1), RULE)


def test_a_frame_that_is_calm_enters_the_history_and_one_that_is_not_the_run() -> None:
    calm, none = step(Track(), whole(-1, 7, 3), RULE)
    assert (calm, none) == (Track((Past(-1.0, False),), (), 0.0, 7, -1, 3), None)
    risen, none = step(calm, whole(-4, 8, 4), RULE)
    assert none is None
    assert risen == Track(calm.history, (whole(-4, 8, 4),), 0.75, 8, -1, 4, run_from=3)
    again, _ = step(risen, whole(-4, 9, 5), RULE)
    assert (again.run, again.total, again.run_from) == ((*risen.run, whole(-4, 9, 5)), 1.5, 3)
    back, _ = step(again, whole(0, 10, 5), RULE)
    assert back.history == (
        Past(-1.0, False), Past(-4.0, True), Past(-4.0, True), Past(0.0, False),
    )  # fmt: skip
    assert back[1:] == ((), 0.0, 10, -1, 5, -1)


def test_the_history_and_the_run_keep_the_newest_frames() -> None:
    track = Track()
    for seq in range(20):
        track, _ = step(track, whole(-1 - seq / 100, seq), RULE)
    assert [round(-100 * each.octaves) - 100 for each in track.history] == list(range(12, 20))
    slow = EvidenceRule(whole=WholeRule(allowance=0.25, rise=0.1, fall=2, limit=6), history_probes=8)
    for seq in range(20, 40):
        track, _ = step(track, whole(-9, seq), slow)
    assert [each.seq for each in track.run] == list(range(32, 40))


def test_an_alarm_has_its_run_its_sum_and_its_baseline_and_begins_an_episode() -> None:
    track = Track(past(-2, -2, -2, -2), last=3, class_id=0)
    first, none = step(track, whole(-9, 4, 1), RULE)
    assert none is None
    second, alarm = step(first, whole(-9, 5, 1), RULE)
    assert alarm == Alarm((whole(-9, 4, 1), whole(-9, 5, 1)), 10.0, 0.25)
    assert second == Track(track.history, (), 0.0, 5, 0, 1)


def test_a_sum_that_just_reaches_the_limit_is_an_alarm() -> None:
    near = Track(past(-2, -2, -2, -2), run=(whole(-9, 1),), total=6 - 1.75)
    assert gain(near, whole(-5, 2), RULE) == pytest.approx(1.75)
    assert step(near, whole(-5, 2), RULE)[1] is not None


def test_an_episode_ends_after_so_many_calm_frames_in_a_row() -> None:
    track = Track(past(-2, -2, -2, -2), last=3, calm=0, class_id=1)
    calms = []
    for seq, octaves in ((4, -1), (5, -9), (6, -1), (7, -1)):
        track, alarm = step(track, whole(octaves, seq, 2), RULE)
        assert alarm is None
        calms.append((track.calm, track.last, track.class_id, track.run))
    assert calms == [(1, 4, 2, ()), (0, 5, 2, ()), (1, 6, 2, ()), (-1, 7, 2, ())]


def test_flips_are_the_share_of_verdicts_beside_the_most_frequent_one() -> None:
    assert [flips(classes) for classes in ([], [3], [3, 3, 4, 3], [1, 2, 3, 4])] == [0.0, 0.0, 0.25, 0.75]


def stranger(count: int, octaves: float = -5.0, first: int = 0) -> Track:
    """A camera without a baseline, just below its limit after `count` frames."""
    run = tuple(whole(octaves, first + seq, 2) for seq in range(count))
    return Track(run=run, total=5.9, last=first + count - 1, class_id=2, run_from=1)


def test_a_stranger_whose_verdicts_flip_raises_its_alarm() -> None:
    asked: list[tuple[int, int]] = []

    def classes(first: int, last: int) -> list[int]:
        asked.append((first, last))
        return [2, 2, 2, 4]

    after, alarm = advance(stranger(3, first=7), whole(-5, 10, 2), RULE, classes)
    assert alarm is not None
    assert alarm.baseline_bits is None
    assert after.calm == 0
    assert asked == [(7, 10)]


@pytest.mark.parametrize(
    ("octaves", "alarmed"), [(-8.0, True), (-7.9, False)]
)  # five octaves below the threshold, or nearly
def test_a_stranger_far_below_the_threshold_needs_no_flips(octaves: float, alarmed: bool) -> None:
    after, alarm = advance(stranger(3, octaves), whole(octaves, 3, 2), RULE, lambda *_: [2] * 4)
    assert (alarm is not None) == alarmed
    assert after.calm == (0 if alarmed else -1)


@pytest.mark.parametrize("seen", [[2, 4, 4], [2, 2, 2, 2], [2, 2, 2, 2, 4]])
def test_a_stranger_with_few_verdicts_or_few_flips_waits_at_its_limit(seen: list[int]) -> None:
    before = stranger(3)
    after, alarm = advance(before, whole(-5, 3, 2), RULE, lambda *_: seen)
    assert alarm is None
    assert after == Track((), (*before.run, whole(-5, 3, 2)), 6.0, 3, -1, 2, 1)


@pytest.mark.parametrize(("count", "seen"), [(3, 6), (7, 4)])
def test_a_stranger_that_keeps_its_class_for_long_has_a_scene_of_low_entropy_for_its_baseline(
    count: int, seen: int
) -> None:
    after, alarm = advance(stranger(count), whole(-5, count, 2), RULE, lambda *_: [2] * seen)
    assert alarm is None
    assert after.history == (Past(-5.0, True), *[Past(-5.0, False)] * count)
    assert after[1:] == ((), 0.0, count, -1, 2, -1)
