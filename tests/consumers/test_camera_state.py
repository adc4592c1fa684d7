"""The rule for the state of a camera, its severity and its reasons; faults that are visible in pictures."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest

from consumers.cameras.picture_health import FROZEN_LEVELS, FROZEN_MS, PictureHealth
from consumers.cameras.state import CameraFacts, State, StateWithReason, alert, current, judge, patience_s
from schemas.limits import LEAST_FRAMES_PER_SECOND
from schemas.pointillist_pb2 import DEGRADED, ENDED, OFFLINE, ONLINE, PAUSED, Meta
from tests.consumers.console_rig import jpeg_scene

NOW_MS = 1_000_000
HOUR_MS = 3_600_000


def state(**facts: object) -> State:
    return judge(CameraFacts(**facts), NOW_MS).state  # type: ignore[arg-type]  # the caller names fields


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"frame_ms": NOW_MS}, State.ONLINE),
        ({"frame_ms": NOW_MS, "reported": ONLINE}, State.ONLINE),
        ({}, State.SILENT),
        ({"frame_ms": NOW_MS - 10_001}, State.SILENT),
        ({"frame_ms": NOW_MS - 99_000, "patience_s": 100}, State.ONLINE),
        ({"frame_ms": NOW_MS, "reported": OFFLINE, "reported_ms": NOW_MS - 5_000}, State.OFFLINE),
        ({"frame_ms": NOW_MS, "reported": OFFLINE, "reported_ms": NOW_MS - 11_000}, State.ONLINE),
        ({"frame_ms": NOW_MS, "reported": DEGRADED, "detail": "hot"}, State.DEGRADED),
        ({"frame_ms": NOW_MS - 60_000, "reported": DEGRADED, "detail": "hot"}, State.DEGRADED),
        ({"frame_ms": NOW_MS - 60_000, "reported": PAUSED, "reported_ms": NOW_MS - 60_000}, State.PAUSED),
        ({"frame_ms": NOW_MS - 60_000, "reported": ENDED, "reported_ms": NOW_MS - 60_000}, State.ENDED),
        ({"reported": ENDED, "reported_ms": NOW_MS}, State.ENDED),
        ({"frame_ms": NOW_MS, "reported": PAUSED, "reported_ms": NOW_MS - 60_000}, State.ONLINE),
        ({"frame_ms": NOW_MS - 60_000, "is_revoked": True, "reported": OFFLINE}, State.REVOKED),
        ({"refusal": "too large", "refused_ms": NOW_MS - 500, "reported": ONLINE}, State.REFUSED),
        ({"refusal": "too large", "refused_ms": NOW_MS - 500, "reported": DEGRADED}, State.REFUSED),
        ({"refusal": "too large", "refused_ms": NOW_MS - 500, "frame_ms": NOW_MS - 100}, State.ONLINE),
        ({"refusal": "too large", "refused_ms": NOW_MS - 11_000}, State.SILENT),
        ({"refusal": "too large", "refused_ms": NOW_MS - 500, "reported": OFFLINE, "reported_ms": 1}, State.OFFLINE),
        ({"frame_ms": NOW_MS, "picture": State.BLACK}, State.BLACK),
        ({"frame_ms": NOW_MS - 60_000, "picture": State.BLACK}, State.SILENT),
        ({"frame_ms": NOW_MS, "picture": State.FROZEN, "is_suspect": True}, State.ALERT),
    ],
)
def test_the_state_follows_from_the_facts(facts: dict[str, object], expected: State) -> None:
    assert state(**facts) is expected


def test_the_manual_lists_the_states_in_the_order_of_their_precedence() -> None:
    table = (Path(__file__).parents[2] / "docs/operations/cameras.md").read_text().partition("## States")[2]
    listed = [State(name) for name in re.findall(r"^\| `([a-z]+)` \|", table.partition("## Remove")[0], re.MULTILINE)]
    alone: dict[State, dict[str, object]] = {
        State.ALERT: {"is_suspect": True},
        State.REVOKED: {"is_revoked": True},
        State.REFUSED: {"refusal": "too large", "refused_ms": NOW_MS, "frame_ms": NOW_MS - 5_000},
        State.SILENT: {"frame_ms": NOW_MS - 60_000},
        State.ONLINE: {"frame_ms": NOW_MS},
    }
    reported = {State.OFFLINE: OFFLINE, State.DEGRADED: DEGRADED, State.PAUSED: PAUSED, State.ENDED: ENDED}
    alone |= {each: {"reported": value, "reported_ms": NOW_MS} for each, value in reported.items()}
    alone |= {each: {"frame_ms": NOW_MS, "picture": each} for each in (State.BLACK, State.FROZEN, State.BLURRED)}
    assert sorted(listed) == sorted(State) == sorted(alone)
    for first, second in combinations(listed, 2):
        if alone[first].keys().isdisjoint(alone[second].keys() - {"frame_ms"}):
            assert state(**alone[second] | alone[first]) is first, (first, second)


def test_every_state_except_online_has_a_reason() -> None:
    facts = [
        CameraFacts(), CameraFacts(frame_ms=0), CameraFacts(reported=OFFLINE),
        CameraFacts(reported=DEGRADED, detail="hot"),
        CameraFacts(reported=PAUSED), CameraFacts(reported=ENDED),
        CameraFacts(is_revoked=True), CameraFacts(is_suspect=True),
        CameraFacts(refusal="too large", refused_ms=NOW_MS),
        *(CameraFacts(frame_ms=NOW_MS, picture=each) for each in (State.BLACK, State.FROZEN, State.BLURRED)),
    ]  # fmt: skip
    judged = [judge(each, NOW_MS) for each in facts]
    assert {each.state for each in judged} == set(State) - {State.ONLINE}
    assert all(each.reason for each in judged)
    assert judge(CameraFacts(frame_ms=NOW_MS), NOW_MS).reason == ""


def test_intended_states_are_no_faults_and_less_severe_than_all_faults() -> None:
    intended = [each for each in State if not each.is_fault]
    assert intended == [State.PAUSED, State.ENDED, State.REVOKED, State.ONLINE]
    assert [each.severity for each in State] == list(range(len(State)))


@pytest.mark.parametrize("needs_frames", [State.ONLINE, State.BLACK, State.FROZEN, State.BLURRED])
def test_a_reader_shows_a_camera_as_silent_when_the_recorder_has_stopped(needs_frames: State) -> None:
    saved = StateWithReason(needs_frames)
    assert current(saved, NOW_MS - 9_000, 10, NOW_MS) == saved
    assert current(saved, NOW_MS - 11_000, 10, NOW_MS).state is State.SILENT


@pytest.mark.parametrize("kept", [State.PAUSED, State.ENDED, State.REVOKED, State.OFFLINE, State.DEGRADED])
def test_a_reader_keeps_a_state_that_needs_no_frames(kept: State) -> None:
    assert current(StateWithReason(kept, "why"), None, 10, NOW_MS) == StateWithReason(kept, "why")


def test_an_open_alert_outranks_every_state() -> None:
    assert alert(StateWithReason(State.OFFLINE, "gone"), 1).state is State.ALERT
    assert alert(StateWithReason(State.OFFLINE, "gone"), 0) == StateWithReason(State.OFFLINE, "gone")


def test_the_patience_with_a_slow_camera_is_a_few_of_its_frame_intervals() -> None:
    assert patience_s(None) == 10
    assert patience_s(Meta(frames_per_second=2)) == 10
    assert patience_s(Meta(frames_per_second=1 / 40)) == 100
    assert patience_s(Meta(frames_per_second=2), longest_gap_s=60) == 150
    assert patience_s(Meta(frames_per_second=LEAST_FRAMES_PER_SECOND)) == 9000
    assert patience_s(None, longest_gap_s=1e9) == 9000


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        ([jpeg_scene(n) for n in range(40)], None),
        ([jpeg_scene(n) for n in range(40)] + [jpeg_scene(1, dark=True)], State.BLACK),
        ([jpeg_scene(n) for n in range(40)] + [jpeg_scene(1, blur=3)], State.BLURRED),
        ([jpeg_scene(3)] * 60, None),
        ([b"\xff\xd8 no"], None),
    ],
    ids=["well", "black", "blurred", "pictures alone do not prove frozen", "no picture"],
)
def test_a_black_or_blurred_picture_is_detected(pictures: list[bytes], expected: State | None) -> None:
    health = PictureHealth()
    for picture in pictures:
        health.update(picture, NOW_MS)
    assert health.state is expected


def test_a_camera_is_frozen_when_no_pixel_has_changed_for_twenty_seconds() -> None:
    health = PictureHealth()
    seconds = range(FROZEN_MS // 1000 + 1)
    states = []
    for second in seconds:
        health.compare(0.0, 1000 * second)
        states.append(health.state)
    assert states == [None] * (len(seconds) - 1) + [State.FROZEN]
    health.compare(2 * FROZEN_LEVELS, 30_000)
    assert health.state is None


def test_two_equal_pictures_far_apart_do_not_make_a_camera_frozen() -> None:
    health = PictureHealth()
    health.compare(0.0, 0)
    health.compare(0.0, 10 * FROZEN_MS)
    assert health.state is None
    health.compare(0.0, 11 * FROZEN_MS)
    assert health.state is State.FROZEN


def test_a_fault_of_pictures_is_restored_until_a_picture_is_good() -> None:
    health = PictureHealth()
    health.restore(State.FROZEN, NOW_MS)
    assert health.state is State.FROZEN
    health.compare(1.0, NOW_MS)
    assert health.state is None


def test_a_blurred_camera_whose_usual_sharpness_was_not_saved_stays_blurred_until_a_picture_is_sharp() -> None:
    health = PictureHealth()
    health.restore(State.BLURRED, NOW_MS)
    for seed in range(40):
        health.update(jpeg_scene(seed, blur=3), NOW_MS)
        assert health.state is State.BLURRED
    health.update(jpeg_scene(1), NOW_MS)
    assert health.state is None


def blurred_hours(between_ms: int) -> int:
    """Return the number of pictures, one each `between_ms`, until a camera with plainer pictures is not blurred."""
    health = PictureHealth()
    for seed in range(40):
        health.update(jpeg_scene(seed), NOW_MS)
    for number in range(24 * 8):
        health.update(jpeg_scene(1, blur=3), NOW_MS + number * between_ms)
        if health.state is None:
            return number
    raise AssertionError("expected that the state ends, and it has not within eight days")


def test_a_camera_that_sees_something_plainer_is_blurred_for_days_and_not_for_ever() -> None:
    hours = blurred_hours(HOUR_MS)
    assert 24 * 4 < hours < 24 * 8
    assert blurred_hours(24 * HOUR_MS) == hours, "a long time without a picture counts as an hour"
