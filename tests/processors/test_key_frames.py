"""Stored key frames, the notes of commits, and the spans of open groups."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.arrivals.key_frames import (
    HELD_PER_CAMERA,
    MAX_NOTE,
    KeyFrame,
    KeyFrames,
    read_note,
    read_span,
    write_note,
)
from processors.arrivals.open_groups import OpenGroups
from schemas.identity import CameraId, Identity
from schemas.messages.frame import Encoding
from schemas.pointillist_pb2 import LOSSLESS
from tests.processors.tiny import payload, verified_job


def key_frame(camera: str, seq: int, offset: int = 0, partition: int = 0, sent_ms: int = 0) -> KeyFrame:
    frame = verified_job(payload(camera, seq, encoding=Encoding(16, 0.0, LOSSLESS)), camera).frame
    return KeyFrame(Identity(CameraId(camera), 7, seq), frame, partition, offset, sent_ms)


def name(camera: str, seq: int) -> Identity:
    return Identity(CameraId(camera), 7, seq)


def test_the_least_recently_used_key_frame_is_evicted_and_its_place_is_kept() -> None:
    one = key_frame("site/a", 0).held_bytes
    held = KeyFrames(3 * one + one // 2)
    for number, camera in enumerate(("site/a", "site/b", "site/c")):
        held.put(key_frame(camera, 0, offset=10 + number))
    assert held.find(name("site/a", 0)) is not None
    held.put(key_frame("site/d", 0, offset=20))
    assert held.find(name("site/b", 0)) is None
    assert held.place(name("site/b", 0)) == (0, 11)
    assert held.find(name("site/a", 0)) is not None
    assert held.bytes <= 3 * one + one // 2
    assert held.places() == {(0, 10), (0, 12), (0, 20)}


def test_a_camera_beyond_its_limit_evicts_its_own_key_frames() -> None:
    held = KeyFrames(2**30)
    held.put(key_frame("site/quiet", 0))
    for seq in range(50):
        held.put(key_frame("site/busy", seq, offset=seq))
    assert len(held) == 1 + HELD_PER_CAMERA
    assert held.find(name("site/quiet", 0)) is not None
    assert held.place(name("site/busy", 45)) == (0, 45)
    assert held.bytes == sum(key_frame("site/busy", seq).held_bytes for seq in range(46, 50)) + (
        key_frame("site/quiet", 0).held_bytes
    )


def test_the_number_of_places_is_bounded() -> None:
    held = KeyFrames(1, places=3)
    for number in range(10):
        held.put(key_frame(f"site/cam-{number}", 0))
    assert [held.place(name(f"site/cam-{number}", 0)) is not None for number in range(10)] == [False] * 7 + [True] * 3
    assert len(held) == 1


def test_a_key_frame_above_the_limit_is_stored_alone_and_counts_once() -> None:
    held = KeyFrames(1)
    for _ in range(3):
        held.put(key_frame("site/a", 0))
    assert held.bytes == key_frame("site/a", 0).held_bytes


def test_the_note_names_the_last_key_frames_of_each_camera_before_the_offset() -> None:
    held = KeyFrames(2**30)
    for seq in range(5):
        held.put(key_frame("site/a", seq, offset=100 + seq))
    held.put(key_frame("site/b", 0, offset=7))
    held.put(key_frame("site/c", 0, offset=50, partition=1))
    assert read_note(held.note(0, 100)) == [7]
    assert read_note(held.note(0, 102)) == [101, 100, 7]
    assert read_note(held.note(0, 1000)) == [104, 103, 102, 7]
    assert read_note(held.note(1, 1000)) == [50]
    assert held.note(2, 1000) == ""


def test_key_frames_behind_the_committed_offset_leave_earlier_ones_in_the_note() -> None:
    held = KeyFrames(2**30)
    for seq in range(40):
        held.put(key_frame("site/a", seq, offset=10 * seq))
    assert len(held) == HELD_PER_CAMERA
    assert read_note(held.note(0, 31)) == [30, 20, 10]
    assert read_note(held.note(0, 205)) == [200, 190, 180]
    assert held.place(name("site/a", 3)) is None
    assert held.place(name("site/a", 18)) == (0, 180)


def test_a_key_frame_that_was_sent_again_keeps_its_first_place() -> None:
    held = KeyFrames(2**30)
    for offset in (5, 9):
        held.put(key_frame("site/a", 0, offset=offset))
    assert held.place(name("site/a", 0)) == (0, 5)
    again = key_frame("site/a", 0, offset=9, sent_ms=60_000)
    held.put(again)
    assert held.first_delivery(again) == (0, 5, 0)
    held.put(key_frame("site/a", 0, offset=2))
    assert read_note(held.note(0, 100)) == [2]
    held.put(key_frame("site/a", 0, offset=1, partition=3))
    assert (read_note(held.note(0, 100)), read_note(held.note(3, 100))) == ([], [1])


@given(st.sets(st.integers(0, 2**63 - 1), max_size=50))
def test_a_note_is_read_as_it_was_written(offsets: set[int]) -> None:
    assert read_note(write_note(offsets)) == sorted(offsets, reverse=True)


def test_a_full_note_keeps_the_newest_offsets_within_kafkas_limit() -> None:
    offsets = range(10**12, 10**12 + 10**7, 1000)
    note = write_note(offsets)
    assert len(note) <= MAX_NOTE
    found = read_note(note)
    assert len(found) > 1200
    assert found == sorted(offsets, reverse=True)[: len(found)]


@settings(deadline=None)
@given(st.one_of(st.text(max_size=20), st.binary(max_size=12).map(lambda b: "keys:" + b.hex())))
def test_a_foreign_note_yields_no_impossible_offset(note: str) -> None:
    assert all(0 <= offset < 2**63 for offset in read_note(note))


@pytest.mark.parametrize("note", ["", "a word", "keys:!", "keys:gA==", "keys:" + "A" * MAX_NOTE, "keys:AQI="])
def test_a_broken_note_yields_no_offset(note: str) -> None:
    assert read_note(note) == []


def test_a_note_carries_the_span_of_open_groups_even_if_it_is_full() -> None:
    span = range(2**62, 2**62 + 900)
    for offsets in ({7, 40}, {1000 * number for number in range(5000)}):
        note = write_note(offsets, span)
        assert len(note) <= MAX_NOTE
        assert read_span(note) == span
        assert read_note(note) == read_note(write_note(offsets))
    assert not read_span(write_note({7}))
    assert write_note(set(), span) == ""


@pytest.mark.parametrize(
    "note",
    ["", "keys:;open:1-2x", "keys:;open:5-5", "keys:;open:-3", "open:1-2", "keys:;open:\u00b2-9",
     f"keys:;open:1-{2**63}"],
)  # fmt: skip
def test_a_broken_span_is_empty(note: str) -> None:
    assert not read_span(note)


def test_the_first_offset_is_that_of_the_oldest_open_group() -> None:
    groups = OpenGroups()
    door, gate = CameraId("site/door"), CameraId("site/gate")
    groups.use(Identity(door, 7, 0), 0, 10, 90, 0.0)
    groups.use(Identity(door, 7, 100), 0, 110, 150, 4.0)
    groups.use(Identity(gate, 7, 0), 0, 50, 51, 4.0)
    groups.use(Identity(gate, 7, 9), 1, 3, 4, 4.0)
    assert groups.span(0, 1000, 4.5) == range(10, 1000)
    assert not groups.span(0, 10, 4.5)  # all groups begin at or behind the committed offset
    assert groups.span(0, 1000, 30.0) == range(50, 1000)  # the first group has had no frame for too long
    groups.use(Identity(door, 7, 100), 0, 110, 300, 50.0)
    assert groups.span(0, 1000, 100.0) == range(110, 1000)
    assert not groups.span(0, 1000, 200.0)
    assert not groups.span(2, 1000, 4.5)


def test_frames_that_come_long_after_their_key_frame_keep_no_group_open() -> None:
    groups, door = OpenGroups(), CameraId("site/door")
    for number in range(5):
        groups.use(Identity(door, 7, 0), 0, 10, 10 + 30_000 * number, 50.0 * number, 50.0 * number)
    assert groups.span(0, 200_000, 101.0) == range(10, 200_000)  # the longest group of the settings
    assert not groups.span(0, 200_000, 200.0)
    groups.use(Identity(door, 7, 0), 0, 10, 199_999, 250.0, 250.0)
    assert not groups.span(0, 200_000, 250.0)
    groups.use(Identity(door, 7, 0), 0, 10, 999, 250.0, 250.0)  # no old part of the log, as after an outage
    assert groups.span(0, 1000, 250.0) == range(10, 1000)


def test_groups_of_uncommitted_frames_stay_open_while_later_groups_are_read() -> None:
    groups, door = OpenGroups(), CameraId("site/door")
    for number in range(6):  # a backlog of six groups with 20 frames each, read at once
        groups.use(Identity(door, 7, 20 * number), 0, 20 * number, 20 * number + 19, 0.0)
    assert [groups.span(0, before, 30.0).start for before in (1, 20, 21, 55, 119)] == [0, 20, 20, 40, 100]


def test_a_group_with_a_repeated_key_frame_begins_at_its_first_frame() -> None:
    groups, door = OpenGroups(), CameraId("site/door")
    groups.use(Identity(door, 7, 0), 0, 12, 12, 0.0)
    groups.use(Identity(door, 7, 0), 0, 12, 10, 0.0)
    groups.use(Identity(door, 7, 0), 0, 12, 13, 0.0)
    assert groups.span(0, 14, 1.0) == range(10, 14)
