"""Confirmations that the bridge collects for each camera and sends in bounded messages."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import ValidationError

from producers.bridge.confirmations import MAX_HELD, MAX_RANGES, Confirmations, Receipt
from producers.publisher.settings import WindowSettings
from schemas.errors import BadTagError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.frame import open_own_message
from schemas.pointillist_pb2 import Confirm
from schemas.ranges import RangeSet

KEYS = KeyRing(b"a fleet secret of thirty-two byte")
CAMERA = CameraId("hall/door")


def confirmed(payload: bytes, generation: int = 0) -> Confirm:
    return open_own_message(Confirm, KEYS.key(CAMERA, generation), payload)


def ranges(confirm: Confirm) -> list[tuple[int, int]]:
    return [(r.first, r.last) for r in confirm.ranges]


def test_a_confirmation_lists_the_frames_of_a_boot_as_ranges_in_any_order_of_arrival() -> None:
    confirmations = Confirmations(KEYS)
    for seq in (5, 3, 4, 9, 3):
        confirmations.add(Receipt(CAMERA, 77, 0, seq))
    ((topic, payload),) = confirmations.drain()
    assert topic == "pointillist/v1/hall/door/confirm"
    assert ranges(confirmed(payload)) == [(3, 5), (9, 9)]
    assert (confirmed(payload).boot_id, confirmed(payload).ledger_revision) == (77, 0)


def test_a_camera_over_its_rate_keeps_all_confirmations_when_it_resends_its_window() -> None:
    confirmations = Confirmations(KEYS)
    for seq in (*range(MAX_HELD // 2), *range(MAX_HELD // 2 + 5_000)):
        confirmations.add(Receipt(CAMERA, 77, 0, seq))
    assert confirmations.drain(lambda _: True) == []
    ((_, payload),) = confirmations.drain()
    assert ranges(confirmed(payload)) == [(0, MAX_HELD // 2 + 4_999)]


def test_a_drained_confirmation_is_not_sent_again() -> None:
    confirmations = Confirmations(KEYS)
    confirmations.add(Receipt(CAMERA, 77, 0, 1))
    assert confirmations.drain()
    assert confirmations.drain() == []


def test_each_confirmation_is_signed_with_the_key_that_signed_the_frame() -> None:
    confirmations = Confirmations(KEYS)
    confirmations.add(Receipt(CAMERA, 77, 2, 1))
    ((_, payload),) = confirmations.drain()
    assert ranges(confirmed(payload, generation=2)) == [(1, 1)]
    with pytest.raises(BadTagError):
        confirmed(payload, generation=0)


def test_boots_and_cameras_have_separate_confirmations() -> None:
    confirmations = Confirmations(KEYS)
    confirmations.add(Receipt(CAMERA, 77, 0, 1))
    confirmations.add(Receipt(CAMERA, 78, 0, 1))
    confirmations.add(Receipt(CameraId("hall/gate"), 77, 0, 1))
    assert sorted(topic for topic, _ in confirmations.drain()) == [
        "pointillist/v1/hall/door/confirm",
        "pointillist/v1/hall/door/confirm",
        "pointillist/v1/hall/gate/confirm",
    ]


def test_a_ledger_is_confirmed_with_its_highest_revision_with_or_without_frames() -> None:
    confirmations = Confirmations(KEYS)
    for revision in (2, 5, 4):
        confirmations.add(Receipt(CAMERA, 77, 0, -1, revision))
    ((_, payload),) = confirmations.drain()
    assert confirmed(payload).ledger_revision == 5
    assert ranges(confirmed(payload)) == []


def test_many_ranges_are_split_into_bounded_messages_and_none_is_missing() -> None:
    confirmations = Confirmations(KEYS)
    seqs = range(0, 4 * MAX_RANGES, 2)
    for seq in seqs:
        confirmations.add(Receipt(CAMERA, 77, 0, seq + 2**40))
    confirmations.add(Receipt(CAMERA, 77, 0, -1, 3))
    messages = [payload for _, payload in confirmations.drain()]
    assert len(messages) == 2
    assert max(map(len, messages)) < 6000
    sent = RangeSet(pair for payload in messages for pair in ranges(confirmed(payload)))
    assert sent == RangeSet.of(seq + 2**40 for seq in seqs)
    assert [confirmed(payload).ledger_revision for payload in messages] == [3, 0]


def test_confirmations_of_a_camera_over_its_rate_wait_and_others_are_sent() -> None:
    confirmations = Confirmations(KEYS)
    other = CameraId("hall/window")
    for seq in range(3):
        confirmations.add(Receipt(CAMERA, 77, 0, seq))
        confirmations.add(Receipt(other, 5, 0, seq))
    confirmations.add(Receipt(CAMERA, 77, 0, -1, revision=4))
    ((topic, _),) = confirmations.drain(lambda camera: camera == CAMERA)
    assert topic == "pointillist/v1/hall/window/confirm"
    assert confirmations.held == 1
    confirmations.add(Receipt(CAMERA, 77, 0, 3))
    ((_, payload),) = confirmations.drain()
    assert (ranges(confirmed(payload)), confirmed(payload).ledger_revision) == ([(0, 3)], 4)
    assert confirmations.held == 0


def test_a_camera_that_stays_over_its_rate_uses_bounded_memory() -> None:
    confirmations = Confirmations(KEYS)
    other = CameraId("hall/window")
    for number in range(2 * MAX_HELD):
        confirmations.add(Receipt(CAMERA, 1 + number, 0, 0))
        confirmations.add(Receipt(other, 1, 0, number))
        if number % 1000 == 0:
            confirmations.drain(lambda _: True)
    confirmations.drain(lambda _: True)
    assert confirmations.held == 2
    boots = Counter(camera for camera, *_ in confirmations._frames)
    assert boots[CAMERA] < MAX_HELD / 10
    assert len(confirmations._frames[other, 1, 0]) <= MAX_HELD


def test_a_camera_over_its_rate_gets_all_confirmations_of_the_largest_window() -> None:
    confirmations = Confirmations(KEYS)
    frames = 65_000
    with pytest.raises(ValidationError):
        WindowSettings(frames=frames + 1)
    for seq in range(frames):
        confirmations.add(Receipt(CAMERA, 77, 0, seq))
        if seq % 5000 == 0:
            confirmations.drain(lambda _: True)
    confirmations.drain(lambda _: True)
    ((_, payload),) = confirmations.drain()
    assert ranges(confirmed(payload)) == [(0, frames - 1)]


def test_a_camera_revoked_before_the_drain_gets_no_confirmation_and_stops_no_other() -> None:
    keys = KeyRing(b"a fleet secret of thirty-two byte")
    gate = CameraId("hall/gate")
    confirmations = Confirmations(keys)
    for camera_id in (CAMERA, gate):
        confirmations.add(Receipt(camera_id, 77, 0, 1))
    keys.accept_from({CAMERA: 1})
    assert [topic for topic, _ in confirmations.drain()] == ["pointillist/v1/hall/gate/confirm"]
    confirmations.add(Receipt(CAMERA, 78, 1, 5))
    ((_, payload),) = confirmations.drain()
    assert ranges(confirmed(payload, generation=1)) == [(5, 5)]
