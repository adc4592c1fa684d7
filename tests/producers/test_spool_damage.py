"""Damage on a spool's medium costs the damaged frames alone, and each of them has a fate."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from producers.spool import Spool, SpoolBoot, SpoolLimits, scan_spool
from producers.spool.segment import read_segment
from schemas.errors import StateError
from schemas.identity import CameraId
from schemas.ranges import RangeSet

CAMERA = CameraId("lab/cam")
PAYLOAD_BYTES = 1000
FRAMES = 130
ROOM = SpoolLimits(max_bytes=2**20)
"""Small enough that segments are 64 KiB: about sixty of these frames each."""


def payload_of(seq: int) -> bytes:
    return random.Random(seq).randbytes(PAYLOAD_BYTES)


def fill(spool: Spool, count: int = FRAMES) -> int:
    for _ in range(count):
        seq = spool.current.next
        spool.append(payload_of(seq), seq, 1000 + seq, 1)
    return spool.current.boot_id


def kill(spool: Spool) -> None:
    """Leave the spool as kill -9 does: nothing written at the end, the lock gone with the process."""
    spool._lock.release()


def segments_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.segment"))


def flip(path: Path, at: int, mask: int = 0x10) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= mask
    path.write_bytes(data)


def whole_frames(path: Path) -> set[int]:
    content = read_segment(path)
    assert content is not None
    return {record.seq for record in content.records}


def scanned(folder: Path, boot_id: int) -> SpoolBoot:
    [boot] = [boot for boot in scan_spool(folder) if boot.boot_id == boot_id]
    return boot


def readable(spool: Spool, boot_id: int) -> RangeSet:
    """The frames that wait in a spool and are read back as they were written."""
    found = RangeSet()
    for seq in range(FRAMES + 20):
        frame = spool.get((boot_id, seq))
        if frame is not None:
            assert spool.read(frame) == payload_of(seq)
            found.add(seq)
    return found


def assert_only(folder: Path, boot_id: int, missing: set[int], published: int = FRAMES) -> None:
    """Of the frames of a boot only those are missing, and they are shed: before its next start and after it."""
    for_audit = scanned(folder, boot_id)
    assert (for_audit.next, set(for_audit.shed)) == (published, missing)
    assert for_audit.waiting == RangeSet([(0, published - 1)]).minus(RangeSet.of(missing))

    spool = Spool(folder, CAMERA, ROOM)
    assert readable(spool, boot_id) == for_audit.waiting
    [ledger] = [ledger for ledger in spool.ledgers.unsettled() if ledger.boot_id == boot_id]
    assert (ledger.next, set(ledger.shed)) == (published, missing)
    assert scanned(folder, boot_id).shed == for_audit.shed
    assert spool.bytes == sum(path.stat().st_size for path in segments_of(folder))
    kill(spool)
    again = Spool(folder, CAMERA, ROOM)
    assert readable(again, boot_id) == for_audit.waiting  # and nothing more is taken for damaged at a later start
    again.close()
    assert scanned(folder, boot_id).shed == for_audit.shed


@settings(max_examples=60, deadline=None)
@given(killed=st.booleans(), where=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255), last=st.booleans())
def test_one_damaged_byte_of_a_segment_costs_one_frame_which_is_shed(
    tmp_path_factory: pytest.TempPathFactory, killed: bool, where: float, mask: int, last: bool
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder, CAMERA, ROOM)
    boot_id = fill(spool)
    kill(spool) if killed else spool.close()
    path = segments_of(folder)[-1 if last else 0]
    first = int(path.name[17:33], 16)
    at = int(where * path.stat().st_size)
    whole = whole_frames(path)
    flip(path, at, mask)
    missing = whole - whole_frames(path)
    assert len(missing) <= 1  # none when it was in the mark of the segment's end
    assert missing or at > path.stat().st_size - 100
    assert_only(folder, boot_id, missing)
    assert all(seq >= first for seq in missing)


def test_damaged_frames_in_the_middle_cost_no_frame_behind_them(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool)
    spool.close()
    for path in segments_of(tmp_path)[:2]:
        flip(path, path.read_bytes().index(payload_of(int(path.name[17:33], 16) + 7)) + 500)
    assert_only(tmp_path, boot_id, {7, int(segments_of(tmp_path)[1].name[17:33], 16) + 7})


@pytest.mark.parametrize("killed", [False, True])
def test_bytes_that_are_all_zero_from_somewhere_on_cost_what_was_in_them(tmp_path: Path, killed: bool) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool)
    spool.ledgers.revise(spool.current)
    kill(spool) if killed else spool.close()
    first, second = segments_of(tmp_path)[0], int(segments_of(tmp_path)[1].name[17:33], 16)
    data = first.read_bytes()
    at = data.index(payload_of(second - 3)) + 10
    first.write_bytes(data[:at] + bytes(len(data) - at))
    assert_only(tmp_path, boot_id, {second - 3, second - 2, second - 1})


@pytest.mark.parametrize("killed", [False, True])
def test_a_file_that_was_cut_costs_what_was_behind_the_cut(tmp_path: Path, killed: bool) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool)
    spool.ledgers.revise(spool.current)
    kill(spool) if killed else spool.close()
    last = segments_of(tmp_path)[-1]
    os.truncate(last, last.read_bytes().index(payload_of(FRAMES - 2)) + 3)
    assert_only(tmp_path, boot_id, {FRAMES - 2, FRAMES - 1})


def test_segments_that_were_confirmed_and_removed_are_not_taken_for_damaged(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool, 400)
    firsts = [int(path.name[17:33], 16) for path in segments_of(tmp_path)]
    assert len(firsts) > 5
    spool.confirm(boot_id, [(firsts[1], firsts[3] - 1), (firsts[-1], 399)])
    kill(spool)
    again = Spool(tmp_path, CAMERA, ROOM)
    assert again.frames == firsts[1] + firsts[-1] - firsts[3] + 400 - firsts[-1]
    assert not scanned(tmp_path, boot_id).shed
    again.close()


@settings(max_examples=60, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
@example(where=0.9999, mask=1)  # the last line's end becomes another white space
def test_one_damaged_byte_of_the_ledger_costs_nothing(
    tmp_path_factory: pytest.TempPathFactory, where: float, mask: int
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder, CAMERA, ROOM)
    boot_id = fill(spool)
    spool.confirm(boot_id, [(0, 2)])
    spool.close()
    before = scanned(folder, boot_id)
    assert before.waiting == RangeSet([(3, FRAMES - 1)])
    path = folder / f"{boot_id:016x}.ledger.json"
    flip(path, int(where * path.stat().st_size), mask)

    assert scanned(folder, boot_id) == before
    again = Spool(folder, CAMERA, ROOM)
    assert readable(again, boot_id) == before.waiting
    assert again.position == FRAMES
    again.close()
    after = scanned(folder, boot_id)
    assert after.revision > before.revision + 1  # above the damaged one, whatever that was
    assert after.waiting == before.waiting
    path.unlink()
    assert scanned(folder, boot_id) == after  # both copies are whole again


@pytest.mark.parametrize("copies", [1, 2])
def test_what_a_full_spool_shed_stays_shed_when_its_ledger_is_damaged(tmp_path: Path, copies: int) -> None:
    limits = SpoolLimits(max_bytes=300_000)
    spool = Spool(tmp_path, CAMERA, limits)
    boot_id = fill(spool, 600)
    spool.close()
    before = scanned(tmp_path, boot_id)
    assert before.shed
    for path in sorted(tmp_path.glob(f"{boot_id:016x}.ledger.*"), reverse=True)[:copies]:
        flip(path, 60)
    again = Spool(tmp_path, CAMERA, limits)
    after = scanned(tmp_path, boot_id)
    assert (after.next, after.shed, after.waiting) == (600, before.shed, before.waiting)
    again.close()


def test_a_frame_that_is_damaged_while_the_camera_runs_is_shed_alone_and_never_sent(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool, 5)
    [path] = segments_of(tmp_path)
    flip(path, path.read_bytes().index(payload_of(2)) + 999)
    told: list[tuple[int, int]] = []
    spool.on_shed = told.extend
    frame = spool.get((boot_id, 2))
    assert frame is not None
    with pytest.raises(StateError, match="frame 2"):
        spool.read(frame)
    assert told == [(boot_id, 2)]
    fill(spool, 5)
    assert readable(spool, boot_id) == RangeSet([(0, 1), (3, 9)])
    assert spool.take_damage() == (1, 0)
    assert spool.take_damage() == (0, 0)
    spool.close()
    assert_only(tmp_path, boot_id, {2}, 10)


def test_damage_is_counted_and_said(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool, 5)
    spool.close()
    [path] = segments_of(tmp_path)
    flip(path, path.read_bytes().index(payload_of(2)))
    for copy in tmp_path.glob(f"{boot_id:016x}.ledger.*"):
        flip(copy, 30)
    with capture_logs() as logs:
        again = Spool(tmp_path, CAMERA, ROOM)
    assert again.take_damage() == (1, 1)
    said = {entry["event"]: entry for entry in logs}
    assert said["spool_ledger_damaged"]["copy_whole"] is False
    assert said["spool_frames_damaged"]["frames"] == 1
    again.close()
