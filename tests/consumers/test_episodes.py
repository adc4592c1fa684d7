"""Episodes: consecutive alerts of one camera. No decision hides later alerts."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from consumers.cameras.episodes import ACKNOWLEDGED, CLOSED, EPISODE_MS, OPEN, AlertSummary, Episode, episodes
from consumers.database.console_store import Review

DOOR = "yard/door"
S = 1000


def states_and_sizes(
    *seconds: float, camera: str = DOOR, reviews: Mapping[str, Review] | None = None, published_ms: tuple[int, ...] = ()
) -> list[tuple[str, int]]:
    found = [AlertSummary(camera, f"{at}", int(at * S)) for at in seconds]
    return [(each.state, len(each.alert_ids)) for each in episodes(found, reviews or {}, published_ms)]


def test_close_alerts_of_one_camera_are_one_episode() -> None:
    (found,) = episodes([AlertSummary(DOOR, name, at * S) for name, at in (("b", 20), ("a", 0), ("c", 33))], {})
    assert found == Episode(DOOR, ["a", "b", "c"], 0, 33 * S, None)
    assert (found.state, found.newest) == (OPEN, "c")


def test_alerts_of_two_cameras_are_two_episodes_with_the_newest_first() -> None:
    found = episodes([AlertSummary("a/x", "1", 0), AlertSummary("a/y", "2", 5), AlertSummary("a/x", "3", 9)], {})
    assert [(each.camera, each.alert_ids) for each in found] == [("a/x", ["1", "3"]), ("a/y", ["2"])]


def test_an_acknowledged_episode_includes_later_alerts_within_its_time_limit() -> None:
    known = {"0": Review(ACKNOWLEDGED, "duty", 5 * S)}
    assert states_and_sizes(0, 33, reviews=known) == [(ACKNOWLEDGED, 2)]
    assert states_and_sizes(0, EPISODE_MS / S + 1, reviews=known) == [(OPEN, 1), (ACKNOWLEDGED, 1)]


def test_an_alert_after_the_closed_one_opens_another_episode() -> None:
    assert states_and_sizes(0, 33, reviews={"0": Review(CLOSED, "duty", 5 * S)}) == [(OPEN, 1), (CLOSED, 1)]
    # Also if the alert was raised before the decision, but written after the page was shown.
    assert states_and_sizes(0, 33, reviews={"0": Review(CLOSED, "duty", 60 * S)}) == [(OPEN, 1), (CLOSED, 1)]


def test_an_episode_ends_with_the_model_that_raised_it() -> None:
    assert states_and_sizes(0, 33, published_ms=(20 * S,)) == [(OPEN, 1), (OPEN, 1)]
    assert states_and_sizes(0, 33, published_ms=(40 * S,)) == [(OPEN, 2)]


_ALERTS = st.lists(st.tuples(st.sampled_from(["a/x", "a/y"]), st.integers(0, 3 * EPISODE_MS)), max_size=12)
_STATES = st.lists(st.sampled_from([OPEN, ACKNOWLEDGED, CLOSED]), min_size=12, max_size=12)


@given(_ALERTS, _STATES, st.lists(st.integers(0, 4 * EPISODE_MS), min_size=12, max_size=12))
def test_each_alert_is_in_one_episode_and_an_alert_that_is_not_closed_in_none_that_is(
    alerts: list[tuple[str, int]], states: list[str], decided_ms: list[int]
) -> None:
    found = [AlertSummary(camera, f"{number}", at_ms) for number, (camera, at_ms) in enumerate(alerts)]
    reviews = {
        each.alert_id: Review(state, "duty", at_ms)
        for each, state, at_ms in zip(found, states, decided_ms, strict=False)
        if state != OPEN
    }
    made = episodes(found, reviews)
    assert sorted(alert_id for each in made for alert_id in each.alert_ids) == sorted(each.alert_id for each in found)
    for each in made:
        assert {one.camera for one in found if one.alert_id in each.alert_ids} == {each.camera}
        mine = {reviews[alert_id].state if alert_id in reviews else OPEN for alert_id in each.alert_ids}
        assert mine == {CLOSED} if each.state == CLOSED else CLOSED not in mine
