"""The window of frames in flight: its bounds, and the times at which a frame is due again, to a tenth of a second."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.publisher.settings import LinkSettings, WindowSettings
from producers.publisher.window import LONGEST_S, Window
from producers.spool import FrameKey

TIMES = LinkSettings(grace_s=1.0, retry_s=2.0, retry_max_s=15.0)
NOBODY: set[FrameKey] = set()


def window(frames: int = 256, payload_bytes: int = 1000) -> Window:
    return Window(WindowSettings(frames=frames, bytes=payload_bytes), TIMES)


def send(window: Window, at: float, *seqs: int, size: int = 10) -> None:
    for seq in seqs:
        window.sent((7, seq), size, at)


def room(window: Window) -> int:
    """Return the bytes of the largest frame that may be sent for the first time."""
    return next(size for size in range(1000, 0, -1) if window.has_room(size))


def confirm(window: Window, at: float, *seqs: int) -> None:
    window.confirmed([(7, seq) for seq in seqs], at)


def due(window: Window, at: float, unacknowledged: set[FrameKey] = NOBODY) -> list[int]:
    return [seq for _, seq in window.due(at, unacknowledged)]


def test_a_window_counts_the_frames_in_flight_and_their_bytes() -> None:
    it = window()
    assert (len(it), it.all()) == (0, [])
    send(it, 0.0, 0)
    send(it, 0.0, 1, size=30)
    send(it, 1.0, 0)
    assert (len(it), it.all(), room(it)) == (2, [(7, 1), (7, 0)], 960)
    assert (7, 1) in it
    assert (7, 2) not in it
    it.shed([(7, 2), (7, 1)])
    assert (len(it), room(it)) == (1, 990)
    send(it, 1.5, 2)
    confirm(it, 2.0, 3, 0)
    assert (len(it), room(it)) == (1, 990)


def test_a_full_window_takes_no_frame_and_a_lone_one_may_exceed_the_bytes() -> None:
    it = window(frames=2)
    assert it.has_room(5000)
    send(it, 0.0, 0, size=400)
    assert it.has_room(600)
    assert not it.has_room(601)
    send(it, 0.0, 1, size=100)
    assert not it.has_room(1)
    confirm(it, 1.0, 1)
    assert it.has_room(600)


@settings(max_examples=50, deadline=None)
@given(lost=st.sets(st.integers(0, 39)), late=st.sets(st.integers(0, 39)), frames=st.integers(1, 12))
def test_every_frame_is_confirmed_in_the_end_and_the_window_never_exceeds_its_bound(
    lost: set[int], late: set[int], frames: int
) -> None:
    it = window(frames=frames)
    unsent = list(range(40))
    attempts = [0] * 40
    waiting: list[tuple[float, int]] = []
    now, steps = 0.0, 0
    while unsent or len(it):
        steps += 1
        assert steps < 20_000
        now += 0.1
        again = due(it, now)
        while again or (unsent and it.has_room(10)):
            seq = (again or unsent).pop(0)
            send(it, now, seq)
            attempts[seq] += 1
            if seq not in lost or attempts[seq] > 1:
                waiting.append((now + (1.5 if seq in late else 0.1), seq))
        assert len(it) <= frames
        confirm(it, now, *(seq for at, seq in waiting if at <= now))
        waiting = [(at, seq) for at, seq in waiting if at > now]
    send(it, now, 40)
    assert frames == 1 or room(it) == 990


def test_frames_that_a_later_confirmation_passed_over_are_due_after_the_grace_and_no_others() -> None:
    it = window()
    send(it, 0.0, 0, 1, 2, 3, 4)
    confirm(it, 0.2, 3)
    assert due(it, 0.9) == []
    assert due(it, 1.0) == [0, 1, 2]
    assert due(it, 1.0, {(7, 1)}) == [0, 2]  # 1 is still in the socket


def test_a_frame_sent_again_is_passed_over_only_by_frames_sent_after_it() -> None:
    it = window()
    send(it, 0.0, 0, 1)
    confirm(it, 0.1, 1)
    send(it, 1.2, 0)
    assert due(it, 60.0) == [0]  # only by the retry without progress
    send(it, 60.0, 5)
    confirm(it, 60.1, 5)
    assert due(it, 60.2) == [0]


def test_the_grace_doubles_twice_with_further_transmissions() -> None:
    it = window()
    now, waits = 0.0, []
    for number in range(5):
        send(it, now, 0, 100 + number)
        confirm(it, now, 100 + number)
        # Each question a tenth of a second later, without the retry that an answer would use up.
        wait = next(step / 10 for step in range(1, 100) if _passed_over(it, now + step / 10))
        waits.append(wait)
        now += wait
    assert waits == [1.0, 2.0, 4.0, 4.0, 4.0]


def _passed_over(it: Window, at: float) -> bool:
    it._retry_at = float("inf")
    return due(it, at) == [0]


def test_without_progress_the_oldest_goes_again_at_times_that_double_up_to_the_longest() -> None:
    it = window()
    for seq in range(3):
        send(it, float(seq), seq)
    times = []
    for step in range(1, 600):
        if found := due(it, step / 10):
            assert found == [0]
            times.append(step / 10)
    assert times == [2.0, 4.0, 8.0, 16.0, 31.0, 46.0]


def test_retries_without_a_subscriber_stay_as_frequent_as_they_were() -> None:
    it = window()
    send(it, 0.0, 0)
    assert [step for step in range(1, 12) if it.due(float(step), NOBODY, no_subscribers=True)] == [2, 4, 6, 8, 10]


def test_frames_without_a_subscriber_are_due_at_once_when_passed_over_and_were_not_transmitted() -> None:
    it = window()
    send(it, 0.0, 0, 1, 2)
    it.undelivered((7, 0))
    it.undelivered((7, 9))  # confirmed meanwhile
    assert due(it, 0.1) == []
    confirm(it, 0.1, 2)
    assert due(it, 0.1) == [0]
    send(it, 0.1, 0, 3)
    confirm(it, 0.2, 3)
    assert due(it, 1.09) == [1]
    assert due(it, 1.1) == [1, 0]


def test_frames_in_the_socket_wait_and_use_up_no_retry() -> None:
    it = window()
    send(it, 0.0, 0)
    assert due(it, 2.0, {(7, 0)}) == []
    assert due(it, 2.1) == [0]


def test_an_unknown_frame_that_is_confirmed_or_shed_is_no_progress() -> None:
    it = window()
    send(it, 0.0, 0)
    confirm(it, 1.9, 9)
    it.shed([(7, 8)])
    assert due(it, 2.0) == [0]


def test_the_first_frame_of_an_empty_window_restarts_the_retry() -> None:
    it = window()
    send(it, 0.0, 0)
    assert due(it, 2.0) == [0]
    it.shed([(7, 0)])
    assert due(it, 60.0) == []
    send(it, 60.0, 1)
    assert due(it, 61.9) == []
    assert due(it, 62.0) == [1]


@pytest.mark.parametrize(("took_s", "waits_s"), [(0.1, 2.0), (1.0, 3.0), (5.0, 15.0), (19.0, 57.0), (300.0, LONGEST_S)])
def test_progress_restarts_the_retry_at_three_times_what_a_confirmation_took_up_to_a_minute(
    took_s: float, waits_s: float
) -> None:
    it = window()
    send(it, 0.0, 0, 1)
    confirm(it, took_s, 0)
    assert due(it, took_s + waits_s - 0.01) == []
    assert due(it, took_s + waits_s + 0.01) == [1]


def test_the_longest_confirmation_counts_and_fades_and_that_of_a_frame_sent_twice_does_not_count() -> None:
    it = window()
    for seq, at in ((0, 0.0), (1, 4.0), (2, 4.0), (3, 4.0)):
        send(it, at, seq)
    confirm(it, 5.0, 0, 1)
    confirm(it, 5.0, 2)
    assert due(it, 5.0 + 3 * 0.95 * 5.0 - 0.01) == []
    assert due(it, 5.0 + 3 * 0.95 * 5.0 + 0.01) == [3]
    for step in range(200):  # quick ones make retries quick again
        send(it, 50.0 + step, 100 + step)
        confirm(it, 50.05 + step, 100 + step)
    send(it, 300.0, 4)
    assert due(it, 302.1) == [3]
    twice = window()
    send(twice, 0.0, 0)
    send(twice, 9.0, 0, 1)
    confirm(twice, 10.0, 0)
    assert due(twice, 11.9) == []
    assert due(twice, 12.0) == [1]


def test_a_retry_that_waits_longer_than_the_longest_stays_as_it_is() -> None:
    it = window()
    send(it, 0.0, 0, 1)
    confirm(it, 10.0, 0)
    assert [at for at in (39.9, 40.0, 69.9, 70.0) if due(it, at) == [1]] == [40.0, 70.0]
