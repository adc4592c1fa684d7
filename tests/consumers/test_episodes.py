"""Alerts of one camera that follow each other are one episode; no decision hides what came after it."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from consumers.cameras.episodes import ACKNOWLEDGED, CLOSED, EPISODE_MS, OPEN, AlertSummary, Episode, episodes
from consumers.database.console_store import Review

DOOR = "yard/door"
S = 1000


def shown(
    *seconds: float, camera: str = DOOR, reviews: Mapping[str, Review] | None = None, published_ms: tuple[int, ...] = ()
) -> list[tuple[str, int]]:
    found = [AlertSummary(camera, f"{at}", int(at * S)) for at in seconds]
    return [(each.state, len(each.alert_ids)) for each in episodes(found, reviews or {}, published_ms)]


def test_three_alerts_for_one_sticker_are_one_row() -> None:
    (found,) = episodes([AlertSummary(DOOR, name, at * S) for name, at in (("b", 20), ("a", 0), ("c", 33))], {})
    assert found == Episode(DOOR, ["a", "b", "c"], 0, 33 * S, None)
    assert (found.state, found.newest) == (OPEN, "c")


def test_two_cameras_are_two_rows_and_the_newest_is_first() -> None:
    found = episodes([AlertSummary("a/x", "1", 0), AlertSummary("a/y", "2", 5), AlertSummary("a/x", "3", 9)], {})
    assert [(each.camera, each.alert_ids) for each in found] == [("a/x", ["1", "3"]), ("a/y", ["2"])]


def test_an_acknowledged_episode_takes_what_follows_within_its_time_and_nothing_later() -> None:
    known = {"0": Review(ACKNOWLEDGED, "duty", 5 * S)}
    assert shown(0, 33, reviews=known) == [(ACKNOWLEDGED, 2)]
    assert shown(0, EPISODE_MS / S + 1, reviews=known) == [(OPEN, 1), (ACKNOWLEDGED, 1)]


def test_an_alert_after_a_closing_opens_another_episode() -> None:
    assert shown(0, 33, reviews={"0": Review(CLOSED, "duty", 5 * S)}) == [(OPEN, 1), (CLOSED, 1)]
    # Also where it was raised before the decision, and written after the page was shown.
    assert shown(0, 33, reviews={"0": Review(CLOSED, "duty", 60 * S)}) == [(OPEN, 1), (CLOSED, 1)]


def test_an_episode_does_not_outlast_the_model_that_raised_it() -> None:
    assert shown(0, 33, published_ms=(20 * S,)) == [(OPEN, 1), (OPEN, 1)]
    assert shown(0, 33, published_ms=(40 * S,)) == [(OPEN, 2)]


_ALERTS = st.lists(st.tuples(st.sampled_from(["a/x", "a/y"]), st.integers(0, 3 * EPISODE_MS)), max_size=12)
_STATES = st.lists(st.sampled_from([OPEN, ACKNOWLEDGED, CLOSED]), min_size=12, max_size=12)


@given(_ALERTS, _STATES, st.lists(st.integers(0, 4 * EPISODE_MS), min_size=12, max_size=12))
def test_every_alert_is_in_one_episode_and_none_that_nobody_closed_in_a_closed_one(
    alerts: list[tuple[str, int]], states: list[str], decided_ms: list[int]
) -> None:
    found = [AlertSummary(camera, f"{place}", at_ms) for place, (camera, at_ms) in enumerate(alerts)]
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
