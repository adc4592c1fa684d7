from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from producers.publisher.settings import LinkSettings, WindowSettings
from producers.publisher.window import Window
from producers.spool import FrameKey

TIMES = LinkSettings()
NOTHING: set[FrameKey] = set()


def window(frames: int = 256, payload_bytes: int = 2**20) -> Window:
    return Window(WindowSettings(frames=frames, bytes=payload_bytes), TIMES)


def keys(*seqs: int) -> list[FrameKey]:
    return [(7, seq) for seq in seqs]


def test_a_full_window_takes_no_new_frame_until_one_is_confirmed() -> None:
    full = window(frames=2)
    for key in keys(0, 1):
        assert full.has_room(10)
        full.sent(key, 10, 0.0)
    assert not full.has_room(10)
    full.confirmed(keys(1), 1.0)
    assert full.has_room(10)


def test_the_byte_bound_holds_but_one_large_frame_passes_alone() -> None:
    small = window(payload_bytes=100)
    assert small.has_room(500)
    small.sent((7, 0), 500, 0.0)
    assert not small.has_room(1)
    small.shed(keys(0))
    small.sent((7, 1), 60, 0.0)
    assert small.has_room(40)
    assert not small.has_room(41)


def test_what_a_later_confirmation_passed_over_is_due_after_the_grace_and_nothing_else() -> None:
    sent = window()
    for key in keys(0, 1, 2, 3, 4):
        sent.sent(key, 10, 0.0)
    sent.confirmed(keys(3), 0.2)

    assert sent.due(0.5, NOTHING) == []
    assert sent.due(1.1, NOTHING) == keys(0, 1, 2)
    assert sent.due(1.1, {(7, 1)}) == keys(0, 2)  # 1 is still in the socket


def test_a_frame_sent_again_is_not_passed_over_by_confirmations_of_what_went_before_it() -> None:
    sent = window()
    for key in keys(0, 1):
        sent.sent(key, 10, 0.0)
    sent.confirmed(keys(1), 0.1)
    sent.sent((7, 0), 10, 1.2)

    assert sent.due(60.0, NOTHING) == keys(0)  # only by the retry without progress
    sent.sent((7, 5), 10, 60.0)
    sent.confirmed(keys(5), 60.1)
    assert sent.due(60.2, NOTHING) == keys(0)


def test_without_progress_only_one_frame_goes_again_ever_more_rarely() -> None:
    sent = window()
    for key in keys(0, 1, 2):
        sent.sent(key, 10, 0.0)
    times, now = [], 0.0
    while now < 60:
        now += 0.5
        due = sent.due(now, NOTHING)
        assert len(due) <= 1
        if due:
            times.append(now)
            sent.sent(due[0], 10, now)
    assert times == [2.0, 4.0, 8.0, 16.0, 31.0, 46.0]

    sent.confirmed(keys(1), 60.0)
    assert [key for key in sent.due(62.0, NOTHING) if key not in keys(0, 2)] == []
    assert sent.due(62.0, NOTHING)


def test_retries_that_no_subscriber_hears_do_not_become_rarer() -> None:
    sent = window()
    sent.sent((7, 0), 10, 0.0)
    for now in (2.0, 4.0, 6.0, 8.0):
        assert sent.due(now, NOTHING, no_subscribers=True) == keys(0)
        sent.sent((7, 0), 10, now)


@settings(max_examples=50, deadline=None)
@given(
    lost=st.sets(st.integers(0, 39)),
    late=st.sets(st.integers(0, 39)),
    frames=st.integers(1, 12),
)
def test_every_frame_is_confirmed_in_the_end_and_the_window_never_exceeds_its_bound(
    lost: set[int], late: set[int], frames: int
) -> None:
    sent = window(frames=frames)
    unsent = keys(*range(40))
    attempts: dict[FrameKey, int] = {}
    waiting: list[tuple[float, FrameKey]] = []
    now, steps = 0.0, 0
    while unsent or len(sent):
        steps += 1
        assert steps < 20_000
        now += 0.1
        due = sent.due(now, NOTHING)
        while due or (unsent and sent.has_room(10)):
            key = (due or unsent).pop(0)
            sent.sent(key, 10, now)
            attempts[key] = attempts.get(key, 0) + 1
            if key[1] in lost and attempts[key] == 1:
                continue
            waiting.append((now + (1.5 if key[1] in late else 0.1), key))
        assert len(sent) <= frames
        sent.confirmed([key for at, key in waiting if at <= now], now)
        waiting = [(at, key) for at, key in waiting if at > now]
    assert sent.payload_bytes == 0


def test_confirmations_that_take_long_make_resends_rare_and_quick_ones_make_them_quick_again() -> None:
    times = LinkSettings()
    window = Window(WindowSettings(), times)
    for seq in range(4):
        window.sent((1, seq), 100, 0.0)
    window.confirmed([(1, 0)], 10.0)
    assert window.due(10.0 + 2 * times.retry_s, ()) == []
    assert window.due(10.0 + 29.0, ()) == []
    assert window.due(10.0 + 31.0, ()) == [(1, 1)]
    for step in range(200):
        window.sent((2, step), 100, 50.0 + step)
        window.confirmed([(2, step)], 50.05 + step)
    assert set(window.due(251.0 + times.grace_s, ())) == {(1, 1), (1, 2), (1, 3)}
