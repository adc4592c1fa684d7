"""What one camera may send: honest ones are confirmed later, others are not taken, and nobody else is concerned."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.bridge.quota import AHEAD_S, BURST_BOOTS, WINDOW_BYTES, WINDOW_MESSAGES, Quota
from schemas.identity import CameraId
from schemas.limits import MAX_CAMERAS
from schemas.topics import Channel, mqtt_topic

DOOR, YARD = CameraId("site/door"), CameraId("site/yard")


def topic(camera: CameraId, channel: Channel = Channel.FRAME) -> bytes:
    return mqtt_topic(camera, channel).encode()


def taken(quota: Quota, camera: CameraId, messages: int, now_s: float, size: int = 0) -> int:
    return sum(quota.accepts(topic(camera), size, now_s) for _ in range(messages))


def test_a_camera_at_its_rate_is_never_held_back() -> None:
    quota = Quota(50, 1000)
    for number in range(1000):
        assert quota.accepts(topic(DOOR), 20, number / 50)
        assert not quota.is_over_rate(DOOR, number / 50)


def test_a_camera_ahead_is_held_back_until_it_has_paid_and_loses_nothing_within_its_window() -> None:
    quota = Quota(10, 0)
    assert taken(quota, DOOR, 10, 5.0) == 10
    assert not quota.is_over_rate(DOOR, 5.0)
    assert taken(quota, DOOR, 256, 5.0) == 256
    assert quota.is_over_rate(DOOR, 5.0 + 25.5)
    assert not quota.is_over_rate(DOOR, 5.0 + 25.7)
    assert not quota.pop_rejected()


def test_who_goes_on_is_refused_and_gets_what_the_quota_is_and_no_more() -> None:
    quota = Quota(100, 0)
    accepted = sum(taken(quota, DOOR, 50, tick / 10) for tick in range(600))
    most = 100 * (59.9 + AHEAD_S) + WINDOW_MESSAGES
    assert most - 2 <= accepted <= most
    assert quota.pop_rejected() == {DOOR: 600 * 50 - accepted}
    assert not quota.pop_rejected()


def test_bytes_are_bounded_as_messages_are() -> None:
    quota = Quota(0, 1000)
    size = WINDOW_BYTES // 4
    assert taken(quota, DOOR, 6, 0.0, size) == 4
    assert quota.is_over_rate(DOOR, 0.0)


def test_a_camera_with_a_rate_of_its_own_has_that_and_the_window_of_a_large_one() -> None:
    quota = Quota(0, 1000, window_bytes=2000)
    large = WINDOW_BYTES // 2
    assert taken(quota, DOOR, 1, 0.0, large) == 0
    quota.set_rates({DOOR: 10.0**6, YARD: 0.0})
    assert taken(quota, DOOR, 3, 0.0, large) == 2
    assert taken(quota, YARD, 100, 0.0, WINDOW_BYTES) == 100
    quota.set_rates({})
    assert taken(quota, DOOR, 1, 1000.0, large) == 0
    assert taken(quota, YARD, 1, 1000.0, large) == 0


def test_what_fits_into_no_window_is_never_taken_and_counted() -> None:
    quota = Quota(0, 1000, window_bytes=2000)
    assert taken(quota, DOOR, 5, 0.0, 3001) == 0
    assert taken(quota, DOOR, 1, 0.0, 3000) == 1
    assert quota.pop_rejected() == {DOOR: 5}


def test_new_boots_come_at_a_bounded_rate_and_are_counted() -> None:
    quota = Quota(0, 0)
    assert sum(quota.accepts_boot(DOOR, boot, 0.0) for boot in range(200)) == BURST_BOOTS
    assert quota.accepts_boot(DOOR, 0, 0.0)
    assert quota.accepts_boot(YARD, 199, 0.0)
    assert quota.pop_rejected() == {DOOR: 200 - BURST_BOOTS}


def test_one_cameras_surplus_is_nobody_elses_and_all_its_topics_count() -> None:
    quota = Quota(1, 0)
    taken(quota, DOOR, 2000, 0.0)
    assert not quota.accepts(topic(DOOR, Channel.EVENT), 0, 0.0)
    assert quota.accepts(topic(YARD), 0, 0.0)
    assert quota.is_over_rate(DOOR, 0.0)
    assert not quota.is_over_rate(YARD, 0.0)


def test_without_a_bound_everything_is_taken() -> None:
    quota = Quota(0, 0)
    assert taken(quota, DOOR, 5000, 0.0, 2**24) == 5000
    assert not quota.is_over_rate(DOOR, 0.0)


def test_made_up_names_take_bounded_memory_and_let_nobody_off() -> None:
    quota = Quota(1, 0)
    taken(quota, DOOR, 2000, 1.0)
    for number in range(5 * MAX_CAMERAS):
        quota.accepts(f"pointillist/v1/s/{number}/frame".encode(), 0, 1.0 + number / 1e4)
    assert len(quota._of_topic) <= 4 * MAX_CAMERAS
    assert quota.is_over_rate(DOOR, 10.0)


@pytest.mark.parametrize("name", [b"", b"x" * 60_000, b"pointillist/v1/UPPER/case/frame", b"\xff/\xff/\xff/\xff/frame"])
def test_what_names_no_camera_of_ours_shares_one_account(name: bytes) -> None:
    quota = Quota(1, 0)
    for number in range(1000):
        quota.accepts(name + b"%d" % number, 0, 0.0)
    assert quota.pop_rejected() == Counter({CameraId(""): 1000 - 1 - WINDOW_MESSAGES})
    assert len(quota._of_topic) == 1


@given(
    st.lists(st.tuples(st.floats(0, 0.2), st.integers(0, 2**20)), max_size=200),
    st.integers(1, 500),
    st.integers(1, 2**21),
)
def test_no_interval_holds_more_than_its_quota_and_what_may_be_ahead(
    arrivals: list[tuple[float, int]], messages_per_s: int, bytes_per_s: int
) -> None:
    quota = Quota(messages_per_s, bytes_per_s)
    now, accepted = 0.0, []
    for pause, size in arrivals:
        now += pause
        if quota.accepts(topic(DOOR), size, now):
            accepted.append((now, size))
    for first, (begun, _) in enumerate(accepted):
        since = accepted[first:]
        seconds = since[-1][0] - begun + AHEAD_S
        assert len(since) <= messages_per_s * seconds + WINDOW_MESSAGES + 1e-6
        assert sum(size for _, size in since) <= bytes_per_s * seconds + WINDOW_BYTES + 1
