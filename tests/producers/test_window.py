"""The window of frames in flight: its limits, and the times at which a frame is due again, to a tenth of a second."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.publisher.settings import LinkSettings, WindowSettings
from producers.publisher.window import LONGEST_S, Window
from producers.spool import FrameKey

TIMES = LinkSettings(grace_s=1.0, retry_s=2.0, retry_max_s=15.0)
NOBODY: set[FrameKey] = set()


def new_window(frames: int = 256, payload_bytes: int = 1000) -> Window:
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
    window = new_window()
    assert (len(window), window.all()) == (0, [])
    send(window, 0.0, 0)
    send(window, 0.0, 1, size=30)
    send(window, 1.0, 0)
    assert (len(window), window.all(), room(window)) == (2, [(7, 1), (7, 0)], 960)
    assert (7, 1) in window
    assert (7, 2) not in window
    window.shed([(7, 2), (7, 1)])
    assert (len(window), room(window)) == (1, 990)
    send(window, 1.5, 2)
    confirm(window, 2.0, 3, 0)
    assert (len(window), room(window)) == (1, 990)


def test_a_full_window_rejects_frames_and_a_single_frame_may_exceed_the_limit_of_bytes() -> None:
    window = new_window(frames=2)
    assert window.has_room(5000)
    send(window, 0.0, 0, size=400)
    assert window.has_room(600)
    assert not window.has_room(601)
    send(window, 0.0, 1, size=100)
    assert not window.has_room(1)
    confirm(window, 1.0, 1)
    assert window.has_room(600)


@settings(max_examples=50, deadline=None)
@given(lost=st.sets(st.integers(0, 39)), late=st.sets(st.integers(0, 39)), frames=st.integers(1, 12))
def test_every_frame_is_confirmed_eventually_and_the_window_never_exceeds_its_limit(
    lost: set[int], late: set[int], frames: int
) -> None:
    window = new_window(frames=frames)
    unsent = list(range(40))
    attempts = [0] * 40
    waiting: list[tuple[float, int]] = []
    now, steps = 0.0, 0
    while unsent or len(window):
        steps += 1
        assert steps < 20_000
        now += 0.1
        again = due(window, now)
        while again or (unsent and window.has_room(10)):
            seq = (again or unsent).pop(0)
            send(window, now, seq)
            attempts[seq] += 1
            if seq not in lost or attempts[seq] > 1:
                waiting.append((now + (1.5 if seq in late else 0.1), seq))
        assert len(window) <= frames
        confirm(window, now, *(seq for at, seq in waiting if at <= now))
        waiting = [(at, seq) for at, seq in waiting if at > now]
    send(window, now, 40)
    assert frames == 1 or room(window) == 990


def test_frames_older_than_a_later_confirmation_are_due_after_the_grace() -> None:
    window = new_window()
    send(window, 0.0, 0, 1, 2, 3, 4)
    confirm(window, 0.2, 3)
    assert due(window, 0.9) == []
    assert due(window, 1.0) == [0, 1, 2]
    assert due(window, 1.0, {(7, 1)}) == [0, 2]  # 1 is still in the socket


def test_a_resent_frame_is_due_after_confirmations_of_frames_sent_after_it() -> None:
    window = new_window()
    send(window, 0.0, 0, 1)
    confirm(window, 0.1, 1)
    send(window, 1.2, 0)
    assert due(window, 60.0) == [0]  # only because of the retry without progress
    send(window, 60.0, 5)
    confirm(window, 60.1, 5)
    assert due(window, 60.2) == [0]


def test_the_grace_doubles_twice_with_further_transmissions() -> None:
    window = new_window()
    now, waits = 0.0, []
    for number in range(5):
        send(window, now, 0, 100 + number)
        confirm(window, now, 100 + number)
        # Check at each tenth of a second, without the retry that a positive answer would use up.
        wait = next(step / 10 for step in range(1, 100) if _is_due(window, now + step / 10))
        waits.append(wait)
        now += wait
    assert waits == [1.0, 2.0, 4.0, 4.0, 4.0]


def _is_due(window: Window, at: float) -> bool:
    window._retry_at = float("inf")
    return due(window, at) == [0]


def test_without_progress_the_oldest_frame_is_retried_at_doubling_intervals_up_to_the_longest() -> None:
    window = new_window()
    for seq in range(3):
        send(window, float(seq), seq)
    times = []
    for step in range(1, 600):
        if found := due(window, step / 10):
            assert found == [0]
            times.append(step / 10)
    assert times == [2.0, 4.0, 8.0, 16.0, 31.0, 46.0]


def test_retries_without_a_subscriber_keep_their_interval() -> None:
    window = new_window()
    send(window, 0.0, 0)
    assert [step for step in range(1, 12) if window.due(float(step), NOBODY, no_subscribers=True)] == [2, 4, 6, 8, 10]


def test_undelivered_frames_are_due_at_once_after_a_later_confirmation() -> None:
    window = new_window()
    send(window, 0.0, 0, 1, 2)
    window.undelivered((7, 0))
    window.undelivered((7, 9))  # confirmed meanwhile
    assert due(window, 0.1) == []
    confirm(window, 0.1, 2)
    assert due(window, 0.1) == [0]
    send(window, 0.1, 0, 3)
    confirm(window, 0.2, 3)
    assert due(window, 1.09) == [1]
    assert due(window, 1.1) == [1, 0]


def test_undelivered_frames_are_retried_soon_although_confirmations_are_slow() -> None:
    window = new_window()
    send(window, 0.0, 0)
    confirm(window, 20.0, 0)
    send(window, 20.5, 3)  # delivered: its confirmation is slow
    send(window, 21.0, 1, 2)
    window.undelivered((7, 1))
    window.undelivered((7, 2))
    assert due(window, 22.9) == []
    assert due(window, 23.0) == [1]
    send(window, 23.0, 1)
    window.undelivered((7, 1))
    assert due(window, 24.9) == []
    assert due(window, 25.0) == [2]
    send(window, 25.0, 2)  # delivered
    assert due(window, 84.9) == []
    assert due(window, 85.0) == [1]


def test_frames_in_the_socket_are_not_due_and_use_up_no_retry() -> None:
    window = new_window()
    send(window, 0.0, 0)
    assert due(window, 2.0, {(7, 0)}) == []
    assert due(window, 2.1) == [0]


def test_the_confirmation_or_shedding_of_an_unknown_frame_is_no_progress() -> None:
    window = new_window()
    send(window, 0.0, 0)
    confirm(window, 1.9, 9)
    window.shed([(7, 8)])
    assert due(window, 2.0) == [0]


def test_the_first_frame_in_an_empty_window_restarts_the_retry() -> None:
    window = new_window()
    send(window, 0.0, 0)
    assert due(window, 2.0) == [0]
    window.shed([(7, 0)])
    assert due(window, 60.0) == []
    send(window, 60.0, 1)
    assert due(window, 61.9) == []
    assert due(window, 62.0) == [1]


@pytest.mark.parametrize(("took_s", "waits_s"), [(0.1, 2.0), (1.0, 3.0), (5.0, 15.0), (19.0, 57.0), (300.0, LONGEST_S)])
def test_progress_restarts_the_retry_at_three_times_the_confirmation_time_up_to_a_minute(
    took_s: float, waits_s: float
) -> None:
    window = new_window()
    send(window, 0.0, 0, 1)
    confirm(window, took_s, 0)
    assert due(window, took_s + waits_s - 0.01) == []
    assert due(window, took_s + waits_s + 0.01) == [1]


def test_the_longest_confirmation_time_counts_and_decays_and_resent_frames_do_not_count() -> None:
    window = new_window()
    for seq, at in ((0, 0.0), (1, 4.0), (2, 4.0), (3, 4.0)):
        send(window, at, seq)
    confirm(window, 5.0, 0, 1)
    confirm(window, 5.0, 2)
    assert due(window, 5.0 + 3 * 0.95 * 5.0 - 0.01) == []
    assert due(window, 5.0 + 3 * 0.95 * 5.0 + 0.01) == [3]
    for step in range(200):  # quick confirmations make retries quick again
        send(window, 50.0 + step, 100 + step)
        confirm(window, 50.05 + step, 100 + step)
    send(window, 300.0, 4)
    assert due(window, 302.1) == [3]
    twice = new_window()
    send(twice, 0.0, 0)
    send(twice, 9.0, 0, 1)
    confirm(twice, 10.0, 0)
    assert due(twice, 11.9) == []
    assert due(twice, 12.0) == [1]


def test_a_retry_interval_above_the_longest_stays_constant() -> None:
    window = new_window()
    send(window, 0.0, 0, 1)
    confirm(window, 10.0, 0)
    assert [at for at in (39.9, 40.0, 69.9, 70.0) if due(window, at) == [1]] == [40.0, 70.0]
