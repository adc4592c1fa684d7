from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.spool import Spool, SpoolLimits, scan_spool
from producers.spool.segment import HEADER_BYTES, read_segment
from schemas.errors import StateError
from schemas.identity import CameraId
from schemas.ranges import RangeSet

CAMERA = CameraId("lab/cam")
ROOMY = SpoolLimits()


def payload_of(seq: int, length: int = 100) -> bytes:
    return bytes((seq + index) % 251 for index in range(length))


def fill(spool: Spool, count: int, length: int = 100) -> None:
    for _ in range(count):
        seq = spool.current.next
        spool.append(payload_of(seq, length), 10 + seq, 1000 + seq, 3072)


class Clock:
    """A monotonic clock that a test moves."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def waiting_of(spool: Spool, boot_id: int) -> RangeSet:
    return RangeSet.of(seq for seq in range(10_000) if spool.get((boot_id, seq)))


def test_what_was_appended_is_read_back_and_freed_by_identity_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 5)
    boot_id = spool.current.boot_id

    freed = spool.confirm(boot_id, [(1, 2), (4, 2**52)])
    ignored = spool.confirm(boot_id + 1, [(0, 9)])

    assert sorted(freed) == [(boot_id, 1), (boot_id, 2), (boot_id, 4)]
    assert ignored == []
    assert waiting_of(spool, boot_id) == RangeSet([(0, 0), (3, 3)])
    frame = spool.get((boot_id, 3))
    assert frame is not None
    assert spool.read(frame) == payload_of(3)
    spool.close()


def test_an_earlier_boot_keeps_its_identities_and_goes_first_after_a_restart(tmp_path: Path) -> None:
    first = Spool(tmp_path, CAMERA)
    fill(first, 6)
    boot_id = first.current.boot_id
    first.confirm(boot_id, [(2, 3)])
    first.close()

    second = Spool(tmp_path, CAMERA)
    fill(second, 1)

    assert second.install_id == first.install_id
    assert second.current.boot_id != boot_id
    assert second.position == 11  # the position that follows the only frame of this boot
    assert second.peek_unsent() == (boot_id, 0)
    [old] = [ledger for ledger in second.ledgers.unsettled() if ledger.boot_id == boot_id]
    assert (old.next, old.closed, old.revision) == (6, True, 2)
    second.close()


def test_the_source_goes_on_after_the_last_appended_frame_even_when_no_segment_is_left(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 3)
    spool.confirm(spool.current.boot_id, [(0, 2)])
    spool.finish()
    assert not list(tmp_path.glob("*.segment"))
    spool.ledgers.confirm(spool.current.boot_id, spool.current.revision)
    assert spool.drained
    spool.close()

    again = Spool(tmp_path, CAMERA)

    assert again.position == 13
    assert [ledger.boot_id for ledger in again.ledgers.unsettled()] == [again.current.boot_id]  # the old one is settled
    again.close()


def test_a_second_process_is_refused_while_the_first_holds_the_folder(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    with pytest.raises(StateError, match="in use"):
        Spool(tmp_path, CAMERA)
    spool.close()
    Spool(tmp_path, CAMERA).close()


def test_a_folder_of_another_camera_is_refused(tmp_path: Path) -> None:
    Spool(tmp_path, CAMERA).close()
    with pytest.raises(StateError, match="lab/cam"):
        Spool(tmp_path, CameraId("lab/other"))


def test_over_the_byte_bound_the_oldest_are_shed_and_entered_in_the_ledger(tmp_path: Path) -> None:
    limits = SpoolLimits(max_bytes=300_000)
    spool = Spool(tmp_path, CAMERA, limits)
    shed: list[tuple[int, int]] = []
    spool.on_shed = shed.extend
    spool_bytes = []
    for _ in range(1000):
        fill(spool, 1, 1000)
        if spool.current.next == 10:
            spool.confirm(spool.current.boot_id, [(3, 4)])
        spool_bytes.append(spool.bytes)
    boot_id = spool.current.boot_id

    assert max(spool_bytes) <= limits.max_bytes
    assert spool.bytes == sum(path.stat().st_size for path in tmp_path.glob("*.segment"))
    everything, waiting = RangeSet([(0, 999)]), waiting_of(spool, boot_id)
    assert everything.minus(spool.current.shed).minus(waiting) == RangeSet([(3, 4)])
    assert RangeSet.of(seq for _, seq in shed) == spool.current.shed
    assert 900 in waiting
    [scanned] = scan_spool(tmp_path)
    assert scanned.shed == spool.current.shed  # durable already
    spool.close()


def test_what_is_older_than_the_age_bound_is_shed(tmp_path: Path) -> None:
    clock = Clock()
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_age_s=16), clock)
    for second in range(10):
        clock.now_s = second
        spool.append(b"x", second, 1_000_000, 1)
    clock.now_s = 20
    spool.shed_old()

    assert 3 in spool.current.shed
    assert 5 not in spool.current.shed
    assert spool.oldest_age_s() == 16
    clock.now_s = 60
    spool.shed_old()
    assert spool.frames == 0
    assert spool.oldest_age_s() == 0
    assert list(spool.current.shed) == list(range(10))
    spool.close()


def test_a_full_disk_sheds_the_oldest_to_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=2**20))
    fill(spool, 200, 1000)
    before = spool.frames
    writev = os.writev

    def no_space(fd: int, parts: list[bytes]) -> int:
        if spool.frames == before:
            return writev(fd, [parts[0]])  # a part of it, as a disk that fills up does
        return writev(fd, parts)

    monkeypatch.setattr(os, "writev", no_space)
    fill(spool, 1, 1000)
    spool.close()

    [scanned] = scan_spool(tmp_path)
    assert scanned.next == 201
    assert max(scanned.shed) < min(scanned.waiting)
    assert 200 in scanned.waiting
    assert len(scanned.shed) + len(scanned.waiting) == 201


def test_a_scan_sees_a_running_camera_and_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "lab" / "cam"
    spool = Spool(folder, CAMERA)
    fill(spool, 7)
    before = {path: path.read_bytes() for path in folder.iterdir()}

    [boot] = scan_spool(tmp_path)

    assert (boot.camera_id, boot.boot_id, boot.first, boot.next) == (CAMERA, spool.current.boot_id, 0, 7)
    assert boot.waiting == RangeSet([(0, 6)])
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert scan_spool(tmp_path / "nothing") == []
    spool.close()


def test_a_damaged_ledger_is_rebuilt_from_the_segments(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 4)
    boot_id = spool.current.boot_id
    spool.close()
    for copy in tmp_path.glob(f"{boot_id:016x}.ledger.*"):
        copy.write_bytes(b"\0" * 40)

    again = Spool(tmp_path, CAMERA)

    assert again.position == 14
    [old] = [ledger for ledger in again.ledgers.unsettled() if ledger.boot_id == boot_id]
    assert (old.next, old.closed) == (4, True)
    assert old.revision > 2
    again.close()


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_spool_cut_at_any_byte_keeps_every_whole_frame_before_the_cut(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    spool = Spool(folder, CAMERA)
    lengths = data.draw(st.lists(st.integers(0, 300), min_size=1, max_size=8))
    for seq, length in enumerate(lengths):
        spool.append(payload_of(seq, length), seq, 1000, 1)
    boot_id = spool.current.boot_id
    [segment] = folder.glob("*.segment")
    size = segment.stat().st_size
    cut = data.draw(st.integers(0, size))
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

    assert again.frames == whole
    for seq in range(whole):
        frame = again.get((boot_id, seq))
        assert frame is not None
        assert again.read(frame) == payload_of(seq, lengths[seq])
    assert again.position == whole
    again.close()


@settings(max_examples=40, deadline=None)
@given(
    operations=st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(1, 12)),
            st.tuples(st.just("confirm"), st.tuples(st.integers(0, 60), st.integers(0, 30), st.integers(0, 3))),
            st.tuples(st.just("restart"), st.booleans()),
            st.tuples(st.just("revise"), st.none()),
        ),
        max_size=20,
    )
)
def test_after_any_history_each_published_frame_is_confirmed_shed_or_waiting(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, object]]
) -> None:
    folder = tmp_path_factory.mktemp("history")
    limits = SpoolLimits(max_bytes=40_000)
    spool = Spool(folder, CAMERA, limits)
    published: set[tuple[int, int]] = set()
    confirmed: set[tuple[int, int]] = set()
    shed: set[tuple[int, int]] = set()
    boots = [spool.current.boot_id]
    spool.on_shed = shed.update
    for name, argument in operations:
        if name == "append":
            assert isinstance(argument, int)
            for _ in range(argument):
                seq = spool.current.next
                spool.append(payload_of(seq, 1700), len(published), 1000, 1)
                published.add((spool.current.boot_id, seq))
        elif name == "confirm":
            assert isinstance(argument, tuple)
            first, length, back = argument
            boot_id = boots[max(0, len(boots) - 1 - back)]
            confirmed.update(spool.confirm(boot_id, [(first, first + length)]))
        elif name == "restart":
            if argument:
                spool.close()
            else:  # as kill -9 leaves it: nothing written at the end, the lock gone with the process
                spool._lock.release()
            spool = Spool(folder, CAMERA, limits)
            spool.on_shed = shed.update
            boots.append(spool.current.boot_id)
        else:
            spool.ledgers.revise(spool.current)

        waiting = {key for key in published if spool.get(key)}
        assert published - confirmed - shed <= waiting
        assert not waiting & shed
        assert spool.frames == len(waiting)
        assert spool.bytes <= limits.max_bytes
        assert spool.position == len(published)
        scanned = {boot.boot_id: boot for boot in scan_spool(folder)}
        for boot_id, seq in waiting:
            assert seq in scanned[boot_id].waiting
            assert seq < scanned[boot_id].next
        for boot_id, seq in shed:
            assert boot_id not in scanned or seq in scanned[boot_id].shed
    for boot_id in boots:
        spool.confirm(boot_id, [(0, 10_000)])
    spool.finish()
    for ledger in list(spool.ledgers.unsettled()):
        spool.ledgers.confirm(ledger.boot_id, ledger.revision)
    assert spool.drained
    assert not list(folder.glob("*.segment"))
    assert [path.name for path in folder.glob("*.ledger.json")] == [f"{spool.current.boot_id:016x}.ledger.json"]
    spool.close()


def test_a_killed_process_leaves_every_frame_that_it_had_published(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from producers.spool import Spool
        spool = Spool(Path({str(tmp_path)!r}), {CAMERA!r})
        while True:
            seq = spool.append(b"p" * 2300, spool.position, 1000, 3072)
            print(spool.current.boot_id, seq, flush=True)
        """
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(500)]
    child.send_signal(signal.SIGKILL)
    lines += child.stdout.readlines()
    child.wait()
    child.stdout.close()
    boot_id, last = (int(part) for part in [line for line in lines if line.endswith("\n")][-1].split())

    [scanned] = scan_spool(tmp_path)
    spool = Spool(tmp_path, CAMERA)

    assert scanned.boot_id == boot_id
    assert scanned.next in (last + 1, last + 2)  # the last one may be written and not yet told
    assert scanned.waiting == RangeSet([(0, scanned.next - 1)])
    assert spool.frames == scanned.next
    assert spool.position == scanned.next
    spool.close()


def test_a_segment_holds_only_its_own_boot_and_knows_its_gaps(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 3)
    [segment] = tmp_path.glob("*.segment")
    records = segment.read_bytes()
    length = HEADER_BYTES + 100
    segment.write_bytes(records[:length] + records[2 * length :])  # frame 1 is missing
    content = read_segment(segment)
    assert content is not None
    assert ([record.seq for record in content.records], list(content.damaged)) == ([0, 2], [1])
    segment.rename(tmp_path / f"{spool.current.boot_id + 1:016x}-{0:016x}.segment")
    of_another = read_segment(tmp_path / f"{spool.current.boot_id + 1:016x}-{0:016x}.segment")
    assert of_another is not None
    assert of_another.records == []
    spool.close()
