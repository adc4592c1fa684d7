"""Where a segment file ends, what lies behind its end, and what its damage may be taken for."""

from __future__ import annotations

from pathlib import Path

import pytest

from producers.spool import Spool
from producers.spool.segment import HEADER_BYTES, read_segment
from schemas.ranges import RangeSet
from tests.producers.test_spool_damage import (
    CAMERA,
    FRAMES,
    ROOM,
    assert_only,
    fill,
    flip,
    kill,
    payload_of,
    scanned,
    segments_of,
)


def first_of(path: Path) -> int:
    return int(path.name[17:33], 16)


def is_open(path: Path) -> bool:
    content = read_segment(path)
    assert content is not None
    return content.open


def test_a_file_is_ended_when_its_process_ends_or_the_next_one_starts(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    fill(spool)
    assert [is_open(path) for path in segments_of(tmp_path)] == [False, False, True]
    kill(spool)
    again = Spool(tmp_path, CAMERA, ROOM)
    assert [is_open(path) for path in segments_of(tmp_path)] == [False] * 3
    assert again.bytes == sum(path.stat().st_size for path in segments_of(tmp_path))
    again.close()


@pytest.mark.parametrize(("ledger_gone", "behind"), [(False, b""), (True, b""), (False, bytes(50))])
def test_a_damaged_mark_of_the_end_costs_no_frame(tmp_path: Path, ledger_gone: bool, behind: bytes) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool)
    spool.finish()
    spool.close()
    last = segments_of(tmp_path)[-1]
    flip(last, last.stat().st_size - HEADER_BYTES)
    last.write_bytes(last.read_bytes() + behind)
    if ledger_gone:
        for copy in tmp_path.glob(f"{boot_id:016x}.ledger.*"):
            flip(copy, 60)
    else:
        assert_only(tmp_path, boot_id, set())
    again = Spool(tmp_path, CAMERA, ROOM)
    assert (again.frames, again.take_damage()) == (FRAMES, (0, int(ledger_gone)))
    assert again.ledgers.of(boot_id).next == FRAMES
    again.close()


def test_a_record_that_its_process_was_killed_in_is_no_frame_and_no_damage(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool, 5)
    fill(spool, 1)
    spool.current.next = 5  # as if it had died before it said so
    kill(spool)
    [path] = segments_of(tmp_path)
    path.write_bytes(path.read_bytes()[:-300])
    assert_only(tmp_path, boot_id, set(), 5)
    again = Spool(tmp_path, CAMERA, ROOM)
    assert again.take_damage() == (0, 0)
    again.close()


def test_a_byte_too_much_between_two_records_costs_no_frame(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool, 6)
    spool.close()
    [path] = segments_of(tmp_path)
    data = path.read_bytes()
    at = data.index(payload_of(3)) - HEADER_BYTES
    path.write_bytes(data[:at] + b"?" + data[at:])
    assert_only(tmp_path, boot_id, set(), 6)


def test_all_that_the_ledger_knows_is_missing_when_the_last_file_ends_in_few_bytes_that_are_damaged(
    tmp_path: Path,
) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool)
    spool.ledgers.revise(spool.current)
    kill(spool)
    last = segments_of(tmp_path)[-1]
    data = last.read_bytes()
    last.write_bytes(data[: data.index(payload_of(FRAMES - 5)) - HEADER_BYTES] + bytes(100))
    assert_only(tmp_path, boot_id, set(range(FRAMES - 5, FRAMES)))


def test_a_file_that_was_confirmed_and_removed_behind_a_damaged_one_counts_as_far_as_the_damage_goes(
    tmp_path: Path,
) -> None:
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


def test_a_rebuilt_ledger_ends_where_its_last_file_begins_when_that_holds_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    boot_id = fill(spool, 100)
    spool.close()
    first, second = segments_of(tmp_path)
    first.unlink()
    second.write_bytes(b"")
    for copy in tmp_path.glob(f"{boot_id:016x}.ledger.*"):
        flip(copy, 60)
    again = Spool(tmp_path, CAMERA, ROOM)
    ledger = again.ledgers.of(boot_id)
    assert (ledger.next, ledger.shed) == (first_of(second), RangeSet([(0, first_of(second) - 1)]))
    again.close()
