"""The gate's exact tests, on simulated pairs of answers."""

from __future__ import annotations

from itertools import cycle, islice

import pytest
from scipy.stats import beta

from infra.monitor.gate import (
    LONG_WAIT_S,
    MOST_WAIT_S,
    AnswerPair,
    Report,
    answer_pair,
    frames_rule,
    is_counted,
    judge,
    labels_rule,
    look_sizes,
)
from infra.monitor.rollout import decide
from infra.monitor.settings import GateRules
from lab.statistics import clopper_pearson
from schemas.messages.frame import Truth
from schemas.pointillist_pb2 import (
    CANARY,
    FAILED,
    MEASURING,
    PASSED,
    PROMOTED,
    SHADOW,
    Answer,
    Comparison,
    Rollout,
    Slot,
)

RULES, CAMERAS = GateRules(), 4
GOOD = AnswerPair(True, False, 0.9, 0.9, 0.010, 0.011, None, None, None)


def finding(pairs: list[AnswerPair], name: str) -> str:
    return next(rule.finding for rule in judge(pairs, RULES, CAMERAS).rules if rule.name == name)


def test_the_bounds_are_those_of_scipy() -> None:
    for successes, count in ((0, 16), (3, 32), (32, 32), (230, 256)):
        low, high = clopper_pearson(successes, count, 0.00625)
        assert low == pytest.approx(beta.ppf(0.00625, successes, count - successes + 1) if successes else 0, abs=1e-6)
        assert high == pytest.approx(
            beta.ppf(1 - 0.00625, successes + 1, count - successes) if successes < count else 1, abs=1e-6
        )


def test_the_number_of_looks_is_fixed_before_the_first() -> None:
    assert look_sizes(RULES) == (16, 32, 64, 128, 256, 512, 1024, 2048)


def test_an_equal_candidate_passes_after_the_least_number_of_pairs_and_not_before() -> None:
    assert judge([GOOD] * 256, RULES, CAMERAS).passed
    assert not judge([GOOD] * 255, RULES, CAMERAS).passed
    assert not judge([GOOD] * 255, RULES, CAMERAS).failed
    assert judge([GOOD] * 15, RULES, CAMERAS).looked == 0


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (GOOD._replace(agrees=False), "agreement"),
        (GOOD._replace(agrees=False, failed=True, confidence=0.0), "errors"),
        (GOOD._replace(confidence=0.0), "confidence"),
        (GOOD._replace(seconds=0.1), "speed"),
        (GOOD._replace(flagged=True), "strip"),
        (GOOD._replace(right=False, live_right=True), "accuracy"),
    ],
)
def test_a_bad_candidate_fails_by_the_rule_for_its_fault_within_64_pairs(bad: AnswerPair, name: str) -> None:
    report = judge([bad] * 64, RULES, CAMERAS)
    assert name in report.failed
    assert not report.passed


def test_an_open_rule_fails_at_the_last_look() -> None:
    untimed = [GOOD._replace(seconds=0.0)] * 2048
    assert finding(untimed[:1024], "speed") == "waits"
    assert finding(untimed, "speed") == "fails"


def test_a_better_model_may_disagree_if_the_truth_is_known() -> None:
    better = GOOD._replace(agrees=False, live_right=False, right=True)
    same = GOOD._replace(live_right=True, right=True)
    pairs = list(islice(cycle([better, same, same]), 256))
    assert finding(pairs, "agreement") == "not measured"
    assert judge(pairs, RULES, CAMERAS).passed


def test_a_candidate_that_disagrees_passes_only_with_the_truth_of_four_cameras() -> None:
    better = GOOD._replace(agrees=False, live_right=False, right=True)
    for cameras, passes in ((3, False), (4, True)):
        assert judge([better] * 256, RULES, cameras).passed is passes
        assert ("agreement" in judge([better] * 256, RULES, cameras).failed) is not passes


def test_labels_can_fail_a_rollout_and_never_delay_one() -> None:
    right, lost = GOOD._replace(live_class=1, class_id=1), GOOD._replace(live_class=1, class_id=2)
    assert labels_rule([(lost, 1)] * 15, RULES).finding == "not measured"
    assert labels_rule([(lost, 1)] * 16, RULES).finding == "fails"
    assert labels_rule([(lost, 2)] * 16, RULES).finding == "passes"
    assert labels_rule([(right, 1)] * 16, RULES).finding == "passes"
    # The next look is at 32 pairs.
    assert labels_rule([(right, 1)] * 16 + [(lost, 1)] * 15, RULES).finding == "passes"
    assert labels_rule([(right._replace(failed=True), 1)] * 16, RULES).finding == "fails"


def test_a_loss_of_accuracy_within_the_limit_does_not_fail_and_a_real_one_does() -> None:
    same, lost = GOOD._replace(live_right=True, right=True), GOOD._replace(live_right=True, right=False)
    assert finding([lost] * 8 + [same] * 248, "accuracy") == "waits"
    assert finding([lost] * 64 + [same] * 192, "accuracy") == "fails"


def test_the_true_class_of_half_of_the_frames_is_not_enough() -> None:
    lie = GOOD._replace(live_right=True, right=False)
    assert finding([lie] * 128 + [GOOD] * 128, "accuracy") == "not measured"
    assert finding([lie] * 129 + [GOOD] * 127, "accuracy") == "fails"


def test_the_least_number_of_pairs_is_within_the_looks() -> None:
    assert GateRules(least_pairs=1024, most_pairs=2047).least_pairs == 1024
    with pytest.raises(ValueError, match="at most 1024, the last look within most_pairs, got 1025"):
        GateRules(least_pairs=1025, most_pairs=2047)


@pytest.mark.parametrize(("cameras", "most"), [(3, 2 / 3), (4, 1 / 2), (8, 1 / 4), (100, 1 / 16)])
def test_the_share_of_one_camera_in_the_pairs_is_bounded(cameras: int, most: float) -> None:
    """Simulate cameras of which half are silent after their first pair and one sends ten times as often."""
    own = [1] * cameras
    for _ in range(2000):
        for camera in [0] * 10 + list(range(1, cameras - cameras // 2)):
            own[camera] += is_counted(own[camera], sum(own), cameras)
    assert sum(own) > 2048
    assert own[0] <= most * sum(own) + 1


def test_one_of_two_cameras_may_give_all_pairs() -> None:
    assert is_counted(2047, 2047, 1)
    assert is_counted(2046, 2047, 2)


def test_a_pair_without_the_live_model_s_answer_is_ignored() -> None:
    assert answer_pair(Comparison(live=Answer(error="broken"), candidate=Answer(class_id=1))) is None


def test_frames_with_a_sticker_or_an_attack_do_not_count_for_accuracy() -> None:
    three = Answer(class_id=3)
    for truth in (Truth(3, sticker=True), Truth(3, attacked=True)):
        pair = answer_pair(Comparison(truth=truth.to_wire(), live=three, candidate=three))
        assert pair is not None
        assert pair.right is None
    plain = answer_pair(Comparison(truth=Truth(3).to_wire(), live=three, candidate=three))
    assert plain is not None
    assert plain.right is True


def test_the_slots_follow_each_other_only_by_rule() -> None:
    passed, failed = judge([GOOD] * 256, RULES, CAMERAS), judge([GOOD._replace(agrees=False)] * 64, RULES, CAMERAS)
    shadow = Rollout(slot=SHADOW, cameras=0.25, by_rule=True)
    canary = Rollout(slot=CANARY, cameras=0.25, by_rule=True)
    assert decide(shadow, passed) == (MEASURING, CANARY)
    assert decide(canary, passed) == (PROMOTED, CANARY)
    assert decide(Rollout(slot=SHADOW, cameras=0.25), passed) == (PASSED, SHADOW)
    assert decide(canary, failed) == (FAILED, CANARY)
    assert decide(canary, judge([], RULES, CAMERAS)) == (MEASURING, CANARY)


@pytest.mark.parametrize(("slot", "option"), [(SHADOW, "--frames"), (CANARY, "--cameras")])
def test_a_slot_without_frames_fails_after_a_deadline_and_names_the_option(slot: Slot, option: str) -> None:
    rollout = Rollout(slot=slot, cameras=0.25, by_rule=True)
    waits = LONG_WAIT_S - 1, MOST_WAIT_S - 1, MOST_WAIT_S
    early, long, late = (frames_rule(0, waited_s, slot) for waited_s in waits)
    assert decide(rollout, Report(0, 0, (early,))) == decide(rollout, Report(0, 0, (long,))) == (MEASURING, slot)
    assert long.reason == late.reason
    assert decide(rollout, Report(0, 0, (late,))) == (FAILED, slot)
    assert late.reason.endswith(f"give a larger {option}")
    assert late.reason in Report(0, 0, (late,)).as_json()
    assert "reason" not in Report(0, 0, (early,)).as_json()
    assert frames_rule(1, MOST_WAIT_S, slot).finding == "passes"
