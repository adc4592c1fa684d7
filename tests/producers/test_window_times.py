"""When a frame is due again, to the tenth of a second."""

from __future__ import annotations

import pytest

from producers.publisher.settings import LinkSettings, WindowSettings
from producers.publisher.window import LONGEST_S, PATIENCE, Window
from producers.spool import FrameKey

TIMES = LinkSettings(grace_s=1.0, retry_s=2.0, retry_max_s=15.0)
NOBODY: set[FrameKey] = set()


def window(frames: int = 256) -> Window:
    return Window(WindowSettings(frames=frames, bytes=1000), TIMES)


def sent(window: Window, seq: int, at: float, size: int = 10) -> bool:
    return window.sent((7, seq), size, at)


def due(window: Window, at: float, unacknowledged: set[FrameKey] = NOBODY) -> list[int]:
    return [seq for _, seq in window.due(at, unacknowledged)]


def test_a_window_knows_what_is_on_the_way_and_how_much_it_is() -> None:
    it = window()
    assert (len(it), it.all(), it.payload_bytes) == (0, [], 0)
    assert not sent(it, 0, 0.0, 10)
    assert not sent(it, 1, 0.0, 30)
    assert sent(it, 0, 1.0, 10)
    assert (len(it), it.all(), it.payload_bytes) == (2, [(7, 1), (7, 0)], 40)
    assert (7, 1) in it
    assert (7, 2) not in it
    it.shed([(7, 2), (7, 1)])
    assert (len(it), it.payload_bytes) == (1, 10)
    it.confirmed([(7, 3), (7, 0)], 2.0)
    assert (len(it), it.payload_bytes) == (0, 0)


def test_an_unknown_frame_that_is_confirmed_is_no_progress() -> None:
    it = window()
    sent(it, 0, 0.0)
    it.confirmed([(7, 9)], 1.9)
    it.shed([(7, 8)])
    assert due(it, 2.0) == [0]


def test_the_grace_doubles_twice_with_further_transmissions() -> None:
    it = window()
    now = 0.0
    waits = []
    for number in range(5):
        sent(it, 0, now)
        sent(it, 100 + number, now)
        it.confirmed([(7, 100 + number)], now)
        wait = next(step / 10 for step in range(1, 100) if due_of(it, now + step / 10))
        waits.append(wait)
        now += wait
    assert waits == [1.0, 2.0, 4.0, 4.0, 4.0]


def due_of(it: Window, at: float) -> bool:
    """Whether frame 0 has been passed over for long enough; asked without the retry that an answer would use up."""
    it._retry_at = float("inf")
    return due(it, at) == [0]


def test_frames_sent_after_the_confirmed_one_are_not_passed_over() -> None:
    it = window()
    for seq in range(4):
        sent(it, seq, 0.0)
    it.confirmed([(7, 2), (7, 0)], 0.0)
    assert due(it, 1.0) == [1]
    it.confirmed([(7, 1)], 1.0)
    # That one took a second, so the retry comes three after it.
    assert due(it, 3.9) == []
    assert due(it, 4.0) == [3]


def test_without_progress_the_oldest_goes_again_at_times_that_double_up_to_the_longest() -> None:
    it = window()
    sent(it, 0, 0.0)
    sent(it, 1, 1.0)
    times = [step / 10 for step in range(1, 600) if due(it, step / 10) == [0]]
    assert times == [2.0, 4.0, 8.0, 16.0, 31.0, 46.0]


def test_the_first_frame_of_an_empty_window_begins_the_retry_anew() -> None:
    it = window()
    sent(it, 0, 0.0)
    assert due(it, 2.0) == [0]
    it.shed([(7, 0)])
    assert due(it, 60.0) == []
    sent(it, 1, 60.0)
    assert due(it, 61.9) == []
    assert due(it, 62.0) == [1]


def test_progress_begins_the_retry_anew() -> None:
    it = window()
    for seq in range(3):
        sent(it, seq, 0.0)
    assert due(it, 2.0) == [0]
    it.confirmed([(7, 0)], 3.0)
    # What took 3 s makes the window wait three times as long.
    assert due(it, 3.0 + 8.9) == []
    assert due(it, 3.0 + 9.0) == [1]


def test_frames_in_the_socket_wait_and_use_up_no_retry() -> None:
    it = window()
    sent(it, 0, 0.0)
    assert due(it, 2.0, {(7, 0)}) == []
    assert due(it, 2.1) == [0]


def test_unheard_retries_stay_as_often_as_they_were() -> None:
    it = window()
    sent(it, 0, 0.0)
    assert [step for step in range(1, 12) if it.due(float(step), NOBODY, no_subscribers=True)] == [2, 4, 6, 8, 10]


@pytest.mark.parametrize(("took_s", "waits_s"), [(0.1, 2.0), (1.0, 3.0), (5.0, 15.0), (19.0, 57.0), (300.0, LONGEST_S)])
def test_the_retry_waits_three_times_what_a_confirmation_took_up_to_a_minute(took_s: float, waits_s: float) -> None:
    it = window()
    for seq in range(3):
        sent(it, seq, 0.0)
    it.confirmed([(7, 0)], took_s)
    it._passed = 0
    assert due(it, took_s + waits_s - 0.01) == []
    assert due(it, took_s + waits_s + 0.01) == [1]


def test_the_longest_of_what_confirmations_took_counts_and_fades() -> None:
    it = window()
    for seq, at in ((0, 0.0), (1, 4.0), (2, 4.0), (3, 4.0)):
        sent(it, seq, at)
    it.confirmed([(7, 0), (7, 1)], 5.0)
    assert it._delay_s == 5.0
    it.confirmed([(7, 2)], 5.0)
    assert it._delay_s == pytest.approx(0.95 * 5.0)
    assert it._retry_at == pytest.approx(5.0 + PATIENCE * 0.95 * 5.0)


def test_a_frame_that_was_sent_twice_tells_no_time() -> None:
    it = window()
    sent(it, 0, 0.0)
    sent(it, 0, 9.0)
    sent(it, 1, 9.0)
    it.confirmed([(7, 0)], 10.0)
    assert it._delay_s == 0.0
    assert due(it, 11.9) == []
    assert due(it, 12.0) == [1]


def test_a_retry_that_waits_longer_than_the_longest_stays_as_it_is() -> None:
    it = window()
    for seq in range(2):
        sent(it, seq, 0.0)
    it.confirmed([(7, 0)], 10.0)
    assert due(it, 40.0) == [1]
    assert due(it, 69.9) == []
    assert due(it, 70.0) == [1]


def test_a_lone_frame_may_exceed_the_bound_and_others_may_reach_it() -> None:
    it = window(frames=2)
    assert it.has_room(5000)
    sent(it, 0, 0.0, 400)
    assert it.has_room(600)
    assert not it.has_room(601)
    sent(it, 1, 0.0, 100)
    assert not it.has_room(1)
