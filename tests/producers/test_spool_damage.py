"""Damaged files of a spool: cut, zeroed and misplaced files and their ends cost only the damaged frames.

Single damaged bytes of frames and ledgers, over any history: `test_spool_machine`.
"""

from __future__ import annotations

import os
import shutil
import time
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from producers.camera.camera_settings import CameraSettings
from producers.sources.settings import SourceSettings
from producers.spool import Spool, SpoolLimits
from producers.spool.segment import HEADER_BYTES, read_segment
from schemas.errors import StateError
from schemas.keys.keys import derive_camera_key
from schemas.ranges import RangeSet
from schemas.runtime.atomic_file import UNFINISHED
from tests.clocks import Clock
from tests.producers.fleet_rig import offline_camera
from tests.producers.spool_rig import (
    CAMERA,
    FRAMES,
    ROOM,
    assert_only,
    fill,
    first_of,
    flip,
    flip_payload,
    kill,
    ledger_copies,
    ledger_of,
    payload_of,
    readable,
    refuse,
    scanned,
    segments_of,
)


def is_open(path: Path) -> bool:
    content = read_segment(path)
    assert content is not None
    return content.open


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_spool_cut_at_any_byte_keeps_every_complete_frame_before_the_cut(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    spool = Spool(folder, CAMERA)
    lengths = data.draw(st.lists(st.integers(0, 300), min_size=1, max_size=8))
    for seq, length in enumerate(lengths):
        spool.append(payload_of(seq, length), seq, 1000, 1)
    boot_id = spool.current.boot_id
    [segment] = segments_of(folder)
    cut = data.draw(st.integers(0, segment.stat().st_size))
    copy = tmp_path_factory.mktemp("copy")
    for path in folder.iterdir():
        shutil.copy(path, copy)
    spool.close()
    left = bytearray((copy / segment.name).read_bytes()[:cut])
    damaged = bool(left) and data.draw(st.booleans())
    if damaged:
        left[-1] ^= 0x55
    (copy / segment.name).write_bytes(left)
    ends = list(accumulate(HEADER_BYTES + length for length in lengths))
    whole = sum(end < cut if damaged else end <= cut for end in ends)

    again = Spool(copy, CAMERA)

    assert again.frames == again.position == whole
    for seq in range(whole):
        frame = again.get((boot_id, seq))
        assert frame is not None
        assert again.read(frame) == payload_of(seq, lengths[seq])
    again.close()


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("how", ["zeroed", "cut"])
def test_a_file_zeroed_or_cut_from_some_byte_on_loses_the_frames_after_it(
    tmp_path: Path, killed: bool, how: str
) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool)
    spool.ledgers.revise(spool.current)
    kill(spool) if killed else spool.close()
    paths = segments_of(tmp_path)
    path, end = (paths[0], first_of(paths[1])) if how == "zeroed" else (paths[-1], FRAMES)
    data = path.read_bytes()
    at = data.index(payload_of(end - 3)) + 10
    path.write_bytes(data[:at] + (bytes(len(data) - at) if how == "zeroed" else b""))
    assert_only(tmp_path, boot_id, {end - 3, end - 2, end - 1})


def test_confirmed_and_deleted_segments_are_not_reported_as_damaged(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool, 400)
    firsts = [first_of(path) for path in segments_of(tmp_path)]
    assert len(firsts) > 5
    spool.confirm(boot_id, [(firsts[1], firsts[3] - 1), (firsts[-1], 399)])
    kill(spool)
    again = Spool(tmp_path, CAMERA, ROOM)
    assert again.frames == firsts[1] + firsts[-1] - firsts[3] + 400 - firsts[-1]
    assert not scanned(tmp_path, boot_id).shed
    again.close()


@pytest.mark.parametrize("where", [0.0, 0.3, 0.9999])
def test_a_damaged_ledger_is_read_from_its_copy_and_both_are_rewritten(tmp_path: Path, where: float) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool)
    spool.confirm(boot_id, [(0, 2)])
    spool.close()
    before = scanned(tmp_path, boot_id)
    assert before.waiting == RangeSet([(3, FRAMES - 1)])
    ledger = ledger_copies(tmp_path, boot_id)[1]
    flip(ledger, int(where * ledger.stat().st_size), 1)  # the newline of the last line becomes another white space

    assert scanned(tmp_path, boot_id) == before
    again = Spool(tmp_path, CAMERA, ROOM)
    assert readable(again, boot_id) == before.waiting
    assert again.position == FRAMES
    again.close()
    after = scanned(tmp_path, boot_id)
    assert after.revision > before.revision + 1  # above the damaged one, whatever its number was
    ledger.unlink()
    assert scanned(tmp_path, boot_id) == after


@pytest.mark.parametrize("copies", [1, 2])
def test_frames_shed_by_a_full_spool_stay_shed_when_its_ledger_is_damaged(tmp_path: Path, copies: int) -> None:
    limits = SpoolLimits(max_bytes=300_000)
    spool = Spool(tmp_path, CAMERA, limits)
    boot_id = fill(spool, 600)
    spool.close()
    before = scanned(tmp_path, boot_id)
    assert before.shed
    for path in ledger_copies(tmp_path, boot_id)[-copies:]:
        flip(path, 60)
    again = Spool(tmp_path, CAMERA, limits)
    after = scanned(tmp_path, boot_id)
    assert (after.next, after.shed, after.waiting) == (600, before.shed, before.waiting)
    again.close()


def test_a_rebuilt_ledger_has_the_frames_of_the_segments_and_counts_the_missing_ones_as_shed(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool, 2 * FRAMES)
    spool.close()
    files = [read_segment(path) for path in segments_of(tmp_path)]
    assert len(files) > 4
    for path in segments_of(tmp_path)[:3:2]:
        path.unlink()
    for copy in ledger_copies(tmp_path, boot_id):
        flip(copy, 60)
    before_ms = time.time_ns() // 10**6
    again = Spool(tmp_path, CAMERA, ROOM)
    after_ms = time.time_ns() // 10**6
    ledger = ledger_of(again, boot_id)
    deleted = RangeSet((file.first, file.next - 1) for place, file in enumerate(files) if file and place in (0, 2))
    assert (ledger.next, ledger.position, ledger.shed) == (2 * FRAMES, 2 * FRAMES, deleted)
    assert before_ms <= ledger.to_message().revision <= after_ms + 1  # and one more for the revision that closes it
    assert files[1] is not None
    assert (ledger.ordinal, ledger.started_ms) == (1, 1000 + files[1].first)
    assert again.current.ordinal == 2
    again.close()


def test_a_ledger_rebuilt_under_a_clock_that_begins_in_1970_has_a_higher_revision_than_the_lost_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool, 2)
    spool.current.revision = 100_000  # after days
    spool.close()
    for copy in ledger_copies(tmp_path, boot_id):
        flip(copy, 60)
    monkeypatch.setattr("producers.spool.recovery.unix_ms", lambda: 20_000)
    again = Spool(tmp_path, CAMERA, ROOM)
    assert ledger_of(again, boot_id).revision > 100_000
    again.close()


@pytest.mark.parametrize("damaged", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_the_source_continues_after_the_last_boot_even_if_ledgers_are_damaged(
    tmp_path: Path, damaged: tuple[int, ...]
) -> None:
    clock = Clock()
    boots = []
    for _ in range(3):
        spool = Spool(tmp_path, CAMERA, monotonic=clock)
        clock.now_s += 10
        boots.append(fill(spool))
        spool.close()
    for number in damaged:
        for copy in ledger_copies(tmp_path, boots[number]):
            flip(copy, 60)
    again = Spool(tmp_path, CAMERA)
    assert again.position == 3 * FRAMES
    assert again.position_lost == (2 in damaged)
    order = []
    while (key := again.peek_unsent()) is not None:
        order.append(key)
        again.take_unsent()
    assert sorted(order) == sorted((boot, seq) for boot in boots for seq in range(FRAMES))
    assert order[-FRAMES:] == [(boots[-1], seq) for seq in range(FRAMES)]
    again.close()


def test_the_last_boot_stays_last_if_an_earlier_ledger_is_written_after_its_frames(tmp_path: Path) -> None:
    clock = Clock()
    first = Spool(tmp_path, CAMERA, monotonic=clock)
    clock.now_s += 10
    earlier = fill(first)
    first.close()
    second = Spool(tmp_path, CAMERA, monotonic=clock)
    clock.now_s += 10
    latest = fill(second)
    clock.now_s += 1
    second.confirm(earlier, [(0, 0)])
    [ledger] = [each for each in second.ledgers.outdated() if each.boot_id == earlier]
    second.ledgers.revise(ledger)
    kill(second)
    for copy in ledger_copies(tmp_path, latest):
        flip(copy, 60)
    again = Spool(tmp_path, CAMERA, monotonic=clock)
    assert again.position == 2 * FRAMES
    again.close()


@pytest.mark.parametrize("is_confirmed", [False, True])
async def test_a_camera_logs_which_source_frames_are_sent_again_after_a_lost_ledger(
    tmp_path: Path, is_confirmed: bool
) -> None:
    spool = Spool(tmp_path, CAMERA)
    boot_id = fill(spool)
    if is_confirmed:
        spool.confirm(boot_id, [(0, FRAMES - 1)])
    spool.close()
    for copy in ledger_copies(tmp_path, boot_id):
        flip(copy, 60)
    settings = CameraSettings(camera_id=CAMERA, source=SourceSettings(kind="scene"))
    camera = offline_camera(settings, derive_camera_key(b"a fleet secret of thirty-two byte", CAMERA), tmp_path)
    with capture_logs() as logs:
        for _ in range(2):  # a reopened source repeats no frame
            camera._positioned().close()
    position = 0 if is_confirmed else FRAMES
    assert logs == [
        {
            "event": "source_position_lost",
            "log_level": "warning",
            "camera": CAMERA,
            "continues_at": position,
            "sent_again": f"frames {position} and later of the source, if they were sent before",
        }
    ]
    await camera.close(0)


def test_a_rebuilt_ledger_ends_at_the_first_frame_of_an_empty_last_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool, 100)
    spool.close()
    first, second = segments_of(tmp_path)
    first.unlink()
    second.write_bytes(b"")
    for copy in ledger_copies(tmp_path, boot_id):
        flip(copy, 60)
    again = Spool(tmp_path, CAMERA, ROOM)
    ledger = again.ledgers.of(boot_id)
    assert (ledger.next, ledger.shed) == (first_of(second), RangeSet([(0, first_of(second) - 1)]))
    again.close()


def test_damage_is_counted_and_logged_with_its_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool, 5)
    [path] = segments_of(tmp_path)
    flip_payload(path, payload_of(3))
    frame = spool.get((boot_id, 3))
    assert frame is not None
    with capture_logs() as logs, pytest.raises(StateError, match="expected frame 3 as it was written"):
        spool.read(frame)
    expected = {"event": "spool_frames_damaged", "log_level": "error", "camera": CAMERA, "file": str(path), "frames": 1}
    assert logs == [expected]
    assert (list(spool.current.shed), spool.current.revision, spool.take_damage()) == ([3], 2, (1, 0))
    spool.close()
    flip_payload(path, payload_of(2))
    for copy in ledger_copies(tmp_path, boot_id):
        flip(copy, 30)
    with capture_logs() as logs:
        again = Spool(tmp_path, CAMERA, ROOM)
    assert again.take_damage() == (2, 1)
    assert again.take_damage() == (0, 0)
    found = {entry["event"]: entry for entry in logs}
    assert found["spool_ledger_damaged"]["copy_whole"] is False
    assert found["spool_frames_damaged"]["frames"] == 2
    again.close()


def test_a_file_with_a_damaged_frame_is_deleted_only_when_no_other_frame_waits_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool)
    path, second = segments_of(tmp_path)[:2]
    last = first_of(second) - 1
    for seq in (1, last):
        flip_payload(path, payload_of(seq))
        frame = spool.get((boot_id, seq))
        assert frame is not None
        with monkeypatch.context() as patched:
            if seq == 1:
                patched.setattr("producers.spool.ledgers.write_ledger", refuse(28))
            with pytest.raises(StateError, match=f"frame {seq} as it was written"):
                spool.read(frame)
        if seq == 1:
            assert path.exists()
            assert [ledger.boot_id for ledger in spool.ledgers.outdated()] == [boot_id]
            spool.confirm(boot_id, [(0, 0), (2, last - 1)])
    assert not path.exists()
    spool.close()
    assert list(scanned(tmp_path, boot_id).shed) == [1, last]


def test_a_segment_is_read_only_for_its_own_boot_and_its_gaps_are_damage(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 3)
    [segment] = segments_of(tmp_path)
    records, length = segment.read_bytes(), HEADER_BYTES + 1000
    segment.write_bytes(records[:length] + records[2 * length :])  # frame 1 is missing
    content = read_segment(segment)
    assert content is not None
    assert ([record.seq for record in content.records], list(content.damaged)) == ([0, 2], [1])
    of_another = segment.rename(tmp_path / f"{spool.current.boot_id + 1:016x}-{0:016x}.segment")
    content = read_segment(of_another)
    assert content is not None
    assert content.records == []
    spool.close()


def test_a_file_is_ended_when_its_process_stops_or_the_next_one_starts(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    fill(spool)
    assert [is_open(path) for path in segments_of(tmp_path)] == [False, False, True]
    kill(spool)
    again = Spool(tmp_path, CAMERA, ROOM)
    assert [is_open(path) for path in segments_of(tmp_path)] == [False] * 3
    again.close()


@pytest.mark.parametrize(("ledger_damaged", "appended"), [(False, b""), (True, b""), (False, bytes(50))])
def test_a_damaged_end_mark_loses_no_frame(tmp_path: Path, ledger_damaged: bool, appended: bytes) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool)
    spool.finish()
    spool.close()
    last = segments_of(tmp_path)[-1]
    flip(last, last.stat().st_size - HEADER_BYTES)
    last.write_bytes(last.read_bytes() + appended)
    if ledger_damaged:
        for copy in ledger_copies(tmp_path, boot_id):
            flip(copy, 60)
    else:
        assert_only(tmp_path, boot_id, set())
    again = Spool(tmp_path, CAMERA, ROOM)
    assert (again.frames, again.take_damage()) == (FRAMES, (0, int(ledger_damaged)))
    assert again.ledgers.of(boot_id).next == FRAMES
    again.close()


def test_a_record_torn_by_a_kill_is_neither_a_frame_nor_damage(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool, 6)
    spool.current.next = 5  # as if the process had died before the append returned
    kill(spool)
    [path] = segments_of(tmp_path)
    os.truncate(path, path.stat().st_size - 300)
    assert_only(tmp_path, boot_id, set(), 5)
    again = Spool(tmp_path, CAMERA, ROOM)
    assert again.take_damage() == (0, 0)
    again.close()


def test_an_extra_byte_between_two_records_loses_no_frame(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool, 6)
    spool.close()
    [path] = segments_of(tmp_path)
    data = path.read_bytes()
    at = data.index(payload_of(3)) - HEADER_BYTES
    path.write_bytes(data[:at] + b"?" + data[at:])
    assert_only(tmp_path, boot_id, set(), 6)


def test_frames_in_the_ledger_are_shed_when_the_last_file_ends_in_damaged_bytes(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool)
    spool.ledgers.revise(spool.current)
    kill(spool)
    last = segments_of(tmp_path)[-1]
    data = last.read_bytes()
    last.write_bytes(data[: data.index(payload_of(FRAMES - 5)) - HEADER_BYTES] + bytes(100))
    assert_only(tmp_path, boot_id, set(range(FRAMES - 5, FRAMES)))


def test_a_deleted_file_after_a_damaged_one_counts_as_far_as_the_damage_may_reach(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool, 200)
    first, second, third = segments_of(tmp_path)[:3]
    spool.confirm(boot_id, [(first_of(second), first_of(third) - 1)])
    kill(spool)
    assert not second.exists()
    data = first.read_bytes()
    first.write_bytes(data[: data.index(payload_of(first_of(second) - 1)) - HEADER_BYTES] + bytes(150))
    shed = scanned(tmp_path, boot_id).shed
    assert shed == RangeSet([(first_of(second) - 1, first_of(second) + 1)])  # three records of the smallest size
    again = Spool(tmp_path, CAMERA, ROOM)
    assert again.ledgers.of(boot_id).shed == shed
    assert again.ledgers.of(boot_id).to_message().shed[0].last == first_of(second) + 1
    again.close()


def test_files_of_an_interrupted_write_are_deleted_and_unknown_files_stay(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    boot_id = fill(spool, 3)
    kill(spool)
    unfinished, other = tmp_path / f".ledger.1.2{UNFINISHED}", tmp_path / "no-name.segment"
    unfinished.touch()
    other.write_bytes(b"x")
    with capture_logs() as logs:
        again = Spool(tmp_path, CAMERA)
    assert [each["file"] for each in logs if each["event"] == "spool_file_unknown"] == [str(other)]
    assert (unfinished.exists(), other.read_bytes()) == (False, b"x")
    assert readable(again, boot_id) == RangeSet([(0, 2)])
    again.close()
