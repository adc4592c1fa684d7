"""A spool's limits, clock, ledgers and revisions, to the byte and the millisecond; histories: `test_spool_machine`."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from producers.camera.camera_settings import CameraSettings
from producers.spool import BootLedger, Spool, SpoolLimits, scan_spool
from producers.spool.folder import spool_root
from producers.spool.ledger import ledger_boot, remove_ledger, write_ledger
from producers.spool.segment import HEADER_BYTES
from schemas.errors import StateError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing, derive_camera_key
from schemas.limits import MAX_SHED_RANGES
from schemas.messages.frame import sign_message
from schemas.messages.ledger import open_ledger
from schemas.pointillist_pb2 import VIDEO, Frame
from schemas.ranges import RangeSet
from tests.clocks import Clock
from tests.producers.fleet_rig import offline_camera
from tests.producers.spool_rig import CAMERA, ROOM, fill, first_of, kill, ledger_of, refuse, scanned, segments_of

DAY_S = 86_400
AGE = SpoolLimits(max_age_s=DAY_S)
IN_1970_MS, IN_2026_MS = 60_000, 1_790_000_000_000
LEDGER_WRITE = "producers.spool.ledgers.write_ledger"


def confirm_revision(spool: Spool, ledger: BootLedger) -> None:
    assert spool.ledgers.confirm(ledger.boot_id, ledger.revision)


def test_a_folder_in_use_or_of_another_camera_is_rejected(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    with pytest.raises(StateError, match="in use"):
        Spool(tmp_path, CAMERA)
    spool.close()
    with pytest.raises(StateError, match="lab/cam"):
        Spool(tmp_path, CameraId("lab/other"))
    Spool(tmp_path, CAMERA).close()


def test_a_killed_process_leaves_every_published_frame(tmp_path: Path) -> None:
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

    boot = scanned(tmp_path, boot_id)
    spool = Spool(tmp_path, CAMERA)

    assert boot.next in (last + 1, last + 2)  # the last one may be written and not yet printed
    assert boot.waiting == RangeSet([(0, boot.next - 1)])
    assert spool.frames == spool.position == boot.next
    spool.close()


def test_a_spool_filled_exactly_to_its_limit_sheds_only_when_another_frame_arrives(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=200_000))
    fill(spool, 184)
    fill(spool, 1, 200_000 - spool.bytes - HEADER_BYTES)
    assert (spool.bytes, len(spool.current.shed)) == (200_000, 0)
    fill(spool, 1, 0)
    assert 0 in spool.current.shed
    assert spool.bytes < 200_000
    spool.close()


def test_shed_frames_of_a_long_outage_use_no_memory(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=2**16))
    fill(spool, 300)
    assert len(spool._unsent) == spool.frames < 100
    assert spool.peek_unsent() == (spool.current.boot_id, 300 - spool.frames)


def test_the_newer_of_two_frames_that_exceed_the_limit_together_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=2**12))
    boot_id = fill(spool, 2, 3000)
    assert spool.get((boot_id, 1)) is not None
    assert (spool.frames, list(spool.current.shed)) == (1, [0])
    spool.close()


def test_segments_end_at_their_limits_of_size_and_age(tmp_path: Path) -> None:
    clock = Clock(50.0)
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=2**20, max_age_s=160), clock)
    fill(spool, 64, 2**10 - HEADER_BYTES)  # 64 KiB to the byte
    found = [len(segments_of(tmp_path))]
    for seconds in (0, 10, 0.001, 10, 0.001):
        clock.now_s += seconds
        fill(spool, 1)
        found.append(len(segments_of(tmp_path)))
    assert found == [1, 2, 2, 3, 3, 4]
    assert {path.stat().st_mode & 0o777 for path in segments_of(tmp_path)} == {0o600}
    spool.close()


def test_a_frame_exactly_at_the_age_limit_and_an_empty_open_file_stay(tmp_path: Path) -> None:
    clock = Clock()
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=2**20, max_age_s=100), clock)
    boot_id = fill(spool, 1)
    clock.now_s = 100.0
    spool.shed_old()
    assert (spool.frames, spool.oldest_age_s()) == (1, 100)
    clock.now_s = 100.001
    spool.confirm(boot_id, [(0, 0)])
    [path] = segments_of(tmp_path)
    spool.shed_old()
    assert segments_of(tmp_path) == [path]
    assert not spool.current.shed
    fill(spool, 1)
    clock.now_s = 300.0
    spool.shed_old()
    assert (spool.frames, spool.oldest_age_s(), spool.current.shed) == (0, 0, RangeSet([(1, 1)]))
    spool.close()


async def test_a_clock_set_forward_during_an_outage_sheds_nothing(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    key = derive_camera_key(b"a fleet secret for the tests", CAMERA)
    settings = CameraSettings(camera_id=CAMERA, spool=AGE)
    camera = offline_camera(settings, key, tmp_path, registry)
    for seq in range(50):
        camera.spool.append(b"frame", seq, IN_1970_MS + seq, 1)
    camera.tick(0.0)
    assert camera.spool.frames == 50
    assert registry.get_sample_value("pointillist_camera_frames_total", {"outcome": "shed"}) == 0
    assert camera.spool.oldest_age_s() < 60
    await camera.close(0.1)


@pytest.mark.parametrize(("killed", "age_s"), [(False, 3605), (True, 3600)])
def test_frames_age_while_the_spool_is_open_and_a_kill_loses_the_age_since_the_last_frame(
    tmp_path: Path, killed: bool, age_s: float
) -> None:
    clock = Clock(1000.0)
    spool = Spool(tmp_path, CAMERA, AGE, clock)
    spool.append(b"frame", 0, IN_2026_MS, 1)
    clock.now_s += 3600
    spool.append(b"frame", 1, IN_1970_MS, 1)
    clock.now_s += 5
    kill(spool) if killed else spool.close()

    later = Clock(5.0)  # the device was off for weeks, and its monotonic clock begins again
    spool = Spool(tmp_path, CAMERA, AGE, later)
    assert spool.oldest_age_s() == age_s
    later.now_s += DAY_S + 1
    spool.shed_old()
    assert spool.frames == 0
    spool.close()


def test_a_ledger_message_has_all_fields_of_the_ledger() -> None:
    before_ms = time.time_ns() // 10**6
    ledger = BootLedger(CAMERA, 7, ordinal=3, started_ms=1234, next=20, position=99, shed=RangeSet([(2, 3), (8, 8)]))
    ledger.revision, ledger.closed, ledger.confirmed_to = 5, True, 9
    ledger.frames_skipped, ledger.frames_resent, ledger.bytes_resent = 11, 12, 13
    message = ledger.to_message()
    assert (message.boot_id, message.revision, message.started_ms, message.first, message.next) == (7, 5, 1234, 0, 20)
    assert [(shed.first, shed.last) for shed in message.shed] == [(2, 3), (8, 8)]
    assert (message.closed, message.confirmed_to) == (True, 9)
    assert (message.frames_skipped, message.frames_resent, message.bytes_resent) == (11, 12, 13)
    assert before_ms <= message.written_ms <= time.time_ns() // 10**6


def test_ledgers_are_found_and_removed_by_their_names(tmp_path: Path) -> None:
    assert spool_root(Path("state")) == Path("state/spool")
    write_ledger(tmp_path, BootLedger(CAMERA, 7, 1, 1000))
    for boot_id in (7, 8):
        remove_ledger(tmp_path, boot_id)
    assert list(tmp_path.iterdir()) == []
    write_ledger(tmp_path, BootLedger(CAMERA, 1, 1, 1000, next=3))
    (tmp_path / "notes.ledger.json").write_text("?")
    assert ledger_boot(tmp_path / "notes.ledger.json") == 0
    spool = Spool(tmp_path, CAMERA)
    assert spool.ledgers.of(1).next == 3
    spool.close()


def test_a_confirmation_outdates_a_revision_if_it_moves_the_first_waiting_frame(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 3)
    spool.ledgers.revise(spool.current)
    for seq, outdated in ((2, []), (0, [spool.current])):
        spool.confirm(spool.current.boot_id, [(seq, seq)])
        assert spool.ledgers.outdated() == outdated
    spool.close()


@pytest.mark.parametrize("killed", [False, True])
def test_an_earlier_boot_is_kept_until_its_last_revision_is_confirmed(tmp_path: Path, killed: bool) -> None:
    first = Spool(tmp_path, CAMERA)
    boot_id = fill(first, 3)
    first.finish()
    confirm_revision(first, first.current)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LEDGER_WRITE, refuse(errno.ENOSPC))
        assert len(first.confirm(boot_id, [(0, 2)])) == 3
        assert not first.drained
    kill(first) if killed else first.close()

    second = Spool(tmp_path, CAMERA)
    old = ledger_of(second, boot_id)
    assert (old.to_message().confirmed_to, old.next) == (3, 3)
    confirm_revision(second, old)
    assert [boot.boot_id for boot in scan_spool(tmp_path)] == [second.current.boot_id]
    kill(second)


def test_a_revision_that_cannot_be_written_is_made_at_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 2)
    for finished in (False, True):
        revision = spool.current.revision
        with monkeypatch.context() as patch:
            patch.setattr(LEDGER_WRITE, refuse(errno.ENOSPC))
            with pytest.raises(StateError, match="No space"):
                spool.finish()
            assert len(spool.confirm(spool.current.boot_id, [(finished, finished)])) == 1
            with pytest.raises(StateError, match="No space"):
                spool.ledgers.revise(spool.current)
        assert (spool.current.revision, spool.current.closed) == (revision, False)
        assert spool.ledgers.outdated() == [spool.current]
    spool.finish()
    assert scanned(tmp_path, spool.current.boot_id).closed
    spool.close()


def test_another_run_starts_at_the_beginning_even_after_a_kill(tmp_path: Path) -> None:
    first = Spool(tmp_path, CAMERA)
    fill(first, 5)
    first.close()
    second = Spool(tmp_path, CAMERA)
    second.rewind()
    kill(second)
    third = Spool(tmp_path, CAMERA)
    assert third.position == 0
    third.close()


def test_starts_without_a_published_frame_leave_only_the_source_position(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 5)
    spool.close()
    for _ in range(5):
        Spool(tmp_path, CAMERA).close()
    last = Spool(tmp_path, CAMERA)
    assert last.position == 5
    assert (
        len(list(tmp_path.glob("*.ledger.json"))) == 3
    )  # the ledgers of the boot with frames, of the previous boot, and of this one
    last.close()


@pytest.mark.parametrize(
    ("confirmed", "dependent"),
    [((), range(6, 12)), ((1, 3, 5), range(6, 12)), ((4, 5), range(6, 12)), ((5, 7, 8), (6, 9, 10, 11))],
)
def test_frames_that_depend_on_a_shed_frame_are_shed_and_other_groups_stay(
    tmp_path: Path, confirmed: tuple[int, ...], dependent: Iterable[int]
) -> None:
    # Each segment holds six frames, and each group twelve: the second half of a group is useless without the first.
    spool = Spool(tmp_path, CAMERA, ROOM)
    while not spool.current.shed:
        seq = spool.current.next
        frame = Frame(seq=seq, profile=VIDEO, key_distance=seq % 12, place=seq % 12, pixels=bytes(10_000))
        spool.append(frame.SerializeToString(), spool.position, 1000 + seq, 1)
        if seq == 12:
            spool.confirm(spool.current.boot_id, [(each, each) for each in confirmed])
    assert first_of(segments_of(tmp_path)[0]) == 12  # no frame waits in earlier segments
    assert set(spool.current.shed) == {*range(6), *dependent} - set(confirmed)
    spool.close()


@pytest.mark.parametrize(("seq", "shed"), [(1, {1, 2}), (3, {3, 4, 5, 6, 7, 8}), (8, {8}), (12, {12, 13, 14, 15})])
def test_a_frame_that_cannot_be_sent_is_shed_with_its_dependents_across_segments(
    tmp_path: Path, seq: int, shed: set[int]
) -> None:
    starts = (0, 3, 9, 12)
    spool = Spool(tmp_path, CAMERA, ROOM)  # each segment holds six frames
    for each in range(16):
        distance = each - max(start for start in starts if start <= each)
        frame = Frame(seq=each, profile=VIDEO, key_distance=distance, place=distance, pixels=bytes(10_000))
        spool.append(frame.SerializeToString(), each, 1000 + each, 1)
    boot_id = spool.current.boot_id
    reported: list[tuple[int, int]] = []
    spool.on_shed = reported.extend
    spool.shed_unsendable((boot_id, seq))
    assert {found for _, found in reported} == shed
    spool.confirm(boot_id, [(0, 15)])
    assert len(segments_of(tmp_path)) == 1  # the open one
    kill(spool)
    assert set(scanned(tmp_path, boot_id).shed) == shed


def test_the_file_of_a_frame_that_cannot_be_sent_is_removed_with_its_last_frame(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, ROOM)
    fill(spool, 2, 60_000)
    first = segments_of(tmp_path)[0]
    spool.shed_unsendable((spool.current.boot_id, 0))
    assert first not in segments_of(tmp_path)
    assert spool.peek_unsent() == (spool.current.boot_id, 1)
    spool.close()


def overload(spool: Spool, groups: int) -> set[int]:
    """Confirm one frame in each round and shed the others; return the confirmed ones."""
    confirmed: set[int] = set()
    while len(confirmed) < groups:
        before = len(spool.current.shed)
        while len(spool.current.shed) == before:
            fill(spool, 1, 20_000)
        seq = min(seq for _, seq in spool._frames)
        spool.confirm(spool.current.boot_id, [(seq, seq)])
        confirmed.add(seq)
    return confirmed


def test_the_ledger_of_a_long_overload_stays_within_the_servers_limit(tmp_path: Path) -> None:
    keys = KeyRing(b"a fleet secret of thirty-two byte")
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=200_000))
    confirmed = overload(spool, 2 * MAX_SHED_RANGES)
    accepted = open_ledger(CAMERA, sign_message(keys.current(CAMERA), spool.current.to_message()), keys)
    shed = RangeSet((each.first, each.last) for each in accepted.shed)
    assert len(accepted.shed) == MAX_SHED_RANGES
    assert set(range(accepted.confirmed_to)) - confirmed <= set(shed)
    assert all(seq < accepted.confirmed_to for seq in shed)
    spool.ledgers.save(spool.current)
    kill(spool)
    again = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=200_000))
    assert again.frames == spool.frames  # a joined range contains no waiting frame
    again.close()


def test_shed_ranges_are_joined_only_before_the_first_waiting_frame(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 400, 100)
    for seq in range(1, 400, 2):
        spool.current.shed.add(seq)
    spool.ledgers.revise(spool.current)
    assert len(spool.current.shed) == 200
    assert len(spool.current.to_message().shed) == MAX_SHED_RANGES
    spool.close()
