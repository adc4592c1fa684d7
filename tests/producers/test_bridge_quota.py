"""The quota of one camera: within it confirmations are delayed, beyond it messages are rejected."""

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


def accepted_count(quota: Quota, camera: CameraId, messages: int, now_s: float, size: int = 0) -> int:
    return sum(quota.accepts(topic(camera), size, now_s) for _ in range(messages))


def test_a_camera_at_its_rate_is_never_over_its_rate() -> None:
    quota = Quota(50, 1000)
    for number in range(1000):
        assert quota.accepts(topic(DOOR), 20, number / 50)
        assert not quota.is_over_rate(DOOR, number / 50)


def test_a_camera_ahead_of_its_rate_loses_nothing_within_its_window_and_recovers_with_time() -> None:
    quota = Quota(10, 0)
    assert accepted_count(quota, DOOR, 10, 5.0) == 10
    assert not quota.is_over_rate(DOOR, 5.0)
    assert accepted_count(quota, DOOR, 256, 5.0) == 256
    assert quota.is_over_rate(DOOR, 5.0 + 25.5)
    assert not quota.is_over_rate(DOOR, 5.0 + 25.7)
    assert not quota.pop_rejected()


def test_a_camera_that_keeps_flooding_gets_exactly_its_quota() -> None:
    quota = Quota(100, 0)
    accepted = sum(accepted_count(quota, DOOR, 50, tick / 10) for tick in range(600))
    most = 100 * (59.9 + AHEAD_S) + WINDOW_MESSAGES
    assert most - 2 <= accepted <= most
    assert quota.pop_rejected() == {DOOR: 600 * 50 - accepted}
    assert not quota.pop_rejected()


def test_bytes_are_limited_like_messages() -> None:
    quota = Quota(0, 1000)
    size = WINDOW_BYTES // 4
    assert accepted_count(quota, DOOR, 6, 0.0, size) == 4
    assert quota.is_over_rate(DOOR, 0.0)


def test_a_rate_for_one_camera_replaces_the_default_with_the_window_of_a_large_rate() -> None:
    quota = Quota(0, 1000, window_bytes=2000)
    large = WINDOW_BYTES // 2
    assert accepted_count(quota, DOOR, 1, 0.0, large) == 0
    quota.set_rates({DOOR: 10.0**6, YARD: 0.0})
    assert accepted_count(quota, DOOR, 3, 0.0, large) == 2
    assert accepted_count(quota, YARD, 100, 0.0, WINDOW_BYTES) == 100
    quota.set_rates({})
    assert accepted_count(quota, DOOR, 1, 1000.0, large) == 0
    assert accepted_count(quota, YARD, 1, 1000.0, large) == 0


def test_a_message_larger_than_the_window_is_always_rejected_and_counted() -> None:
    quota = Quota(0, 1000, window_bytes=2000)
    assert accepted_count(quota, DOOR, 5, 0.0, 3001) == 0
    assert accepted_count(quota, DOOR, 1, 0.0, 3000) == 1
    assert quota.pop_rejected() == {DOOR: 5}


def test_new_boots_are_accepted_at_a_bounded_rate_and_rejections_are_counted() -> None:
    quota = Quota(0, 0)
    assert sum(quota.accepts_boot(DOOR, boot, 0.0) for boot in range(200)) == BURST_BOOTS
    assert quota.accepts_boot(DOOR, 0, 0.0)
    assert quota.accepts_boot(YARD, 199, 0.0)
    assert quota.pop_rejected() == {DOOR: 200 - BURST_BOOTS}


def test_all_topics_of_a_camera_share_its_quota_and_no_other_camera_does() -> None:
    quota = Quota(1, 0)
    accepted_count(quota, DOOR, 2000, 0.0)
    assert not quota.accepts(topic(DOOR, Channel.EVENT), 0, 0.0)
    assert quota.accepts(topic(YARD), 0, 0.0)
    assert quota.is_over_rate(DOOR, 0.0)
    assert not quota.is_over_rate(YARD, 0.0)


def test_a_quota_of_zero_accepts_everything() -> None:
    quota = Quota(0, 0)
    assert accepted_count(quota, DOOR, 5000, 0.0, 2**24) == 5000
    assert not quota.is_over_rate(DOOR, 0.0)


def test_invented_camera_names_use_bounded_memory_and_reset_no_quota() -> None:
    quota = Quota(1, 0)
    accepted_count(quota, DOOR, 2000, 1.0)
    for number in range(5 * MAX_CAMERAS):
        quota.accepts(f"pointillist/v1/s/{number}/frame".encode(), 0, 1.0 + number / 1e4)
    assert len(quota._of_topic) <= 4 * MAX_CAMERAS
    assert quota.is_over_rate(DOOR, 10.0)


@pytest.mark.parametrize("name", [b"", b"x" * 60_000, b"pointillist/v1/UPPER/case/frame", b"\xff/\xff/\xff/\xff/frame"])
def test_invalid_topics_share_one_quota(name: bytes) -> None:
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
def test_no_interval_exceeds_its_quota_plus_the_allowed_burst(
    arrivals: list[tuple[float, int]], messages_per_s: int, bytes_per_s: int
) -> None:
    quota = Quota(messages_per_s, bytes_per_s)
    now, accepted = 0.0, []
    for pause, size in arrivals:
        now += pause
        if quota.accepts(topic(DOOR), size, now):
            accepted.append((now, size))
    for first, (begun, _) in enumerate(accepted):
        following = accepted[first:]
        seconds = following[-1][0] - begun + AHEAD_S
        assert len(following) <= messages_per_s * seconds + WINDOW_MESSAGES + 1e-6
        assert sum(size for _, size in following) <= bytes_per_s * seconds + WINDOW_BYTES + 1
