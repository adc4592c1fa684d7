"""What a spool's ledger revisions say of the frames that wait, and when a boot may be forgotten."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from producers.spool import BootLedger, Spool, SpoolLimits, scan_spool
from schemas.errors import StateError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.limits import MAX_SHED_RANGES
from schemas.messages.frame import sign_message
from schemas.messages.ledger import open_ledger
from schemas.ranges import RangeSet

CAMERA = CameraId("lab/cam")


def fill(spool: Spool, count: int, length: int = 100) -> None:
    for _ in range(count):
        spool.append(bytes(length), spool.position, 1000, 1)


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def kill(spool: Spool) -> None:
    """Leave the spool as kill -9 does: nothing written at the end, the lock gone with the process."""
    spool._lock.release()


def confirm_revision(spool: Spool, ledger: BootLedger) -> None:
    assert spool.ledgers.confirm(ledger.boot_id, ledger.revision)


def test_a_revision_says_below_which_frame_nothing_waits_as_of_now(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 6)
    told = []
    for confirmed in ((0, 1), (3, 3), (2, 2), (4, 5)):
        spool.confirm(spool.current.boot_id, [confirmed])
        spool.ledgers.revise(spool.current)
        told.append(spool.current.to_message().confirmed_to)
    assert told == [2, 2, 4, 6]
    spool.close()


def test_what_was_shed_is_not_waited_for(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=300_000))
    fill(spool, 400, 1000)
    message = spool.current.to_message()  # shedding makes a revision
    assert message.confirmed_to == message.shed[-1].last + 1 > 0
    spool.close()


def test_a_confirmation_alone_makes_a_revision_outdated(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 3)
    spool.ledgers.revise(spool.current)
    assert spool.ledgers.outdated() == []
    spool.confirm(spool.current.boot_id, [(2, 2)])
    assert spool.ledgers.outdated() == []
    spool.confirm(spool.current.boot_id, [(0, 0)])
    assert spool.ledgers.outdated() == [spool.current]
    spool.close()


def test_a_boot_is_drained_when_the_server_holds_a_revision_that_says_so(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 2)
    spool.finish()
    confirm_revision(spool, spool.current)
    spool.confirm(spool.current.boot_id, [(0, 1)])

    before = spool.drained
    [last] = spool.ledgers.unsettled()
    assert (last.to_message().confirmed_to, last.to_message().next) == (2, 2)
    confirm_revision(spool, last)
    assert (before, spool.drained) == (False, True)
    spool.close()


def test_asking_whether_a_spool_is_drained_changes_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 2)
    spool.finish()
    spool.confirm(spool.current.boot_id, [(0, 1)])
    confirm_revision(spool, spool.current)
    spool.current.confirmed_to = 1
    assert spool.drained
    assert spool.ledgers.outdated() == []
    assert spool.current.confirmed_to == 1
    spool.close()


@pytest.mark.parametrize("killed", [False, True])
def test_an_earlier_boot_is_kept_until_its_last_revision_is_confirmed(tmp_path: Path, killed: bool) -> None:
    first = Spool(tmp_path, CAMERA)
    fill(first, 3)
    first.finish()
    confirm_revision(first, first.current)
    boot_id = first.current.boot_id
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("producers.spool.ledgers.write_ledger", no_space)
        assert len(first.confirm(boot_id, [(0, 2)])) == 3
        assert not first.drained
    kill(first) if killed else first.close()

    second = Spool(tmp_path, CAMERA)
    [old] = [ledger for ledger in second.ledgers.unsettled() if ledger.boot_id == boot_id]
    assert (old.to_message().confirmed_to, old.next) == (3, 3)
    confirm_revision(second, old)
    assert [boot.boot_id for boot in scan_spool(tmp_path)] == [second.current.boot_id]
    kill(second)


def test_a_revision_that_cannot_be_written_is_none_and_frees_its_frames_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 2)
    spool.finish()
    revision = spool.current.revision
    with monkeypatch.context() as patch:
        patch.setattr("producers.spool.ledgers.write_ledger", no_space)
        freed = spool.confirm(spool.current.boot_id, [(0, 1)])
        with pytest.raises(StateError, match="No space"):
            spool.ledgers.revise(spool.current)
    assert len(freed) == 2
    assert spool.current.revision == revision
    assert spool.ledgers.outdated() == [spool.current]
    spool.close()


def test_a_boot_whose_closing_cannot_be_written_is_closed_by_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 2)
    with monkeypatch.context() as patch:
        patch.setattr("producers.spool.ledgers.write_ledger", no_space)
        with pytest.raises(StateError):
            spool.finish()
    assert not spool.current.closed
    spool.finish()
    [boot] = scan_spool(tmp_path)
    assert boot.closed
    spool.close()


def test_another_run_begins_at_the_beginning_even_after_a_kill(tmp_path: Path) -> None:
    first = Spool(tmp_path, CAMERA)
    fill(first, 5)
    first.close()
    second = Spool(tmp_path, CAMERA)
    second.rewind()
    kill(second)
    third = Spool(tmp_path, CAMERA)
    assert third.position == 0
    third.close()


def test_starts_that_published_nothing_leave_no_trace_but_the_source_position(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 5)
    spool.close()
    for _ in range(5):
        Spool(tmp_path, CAMERA).close()
    last = Spool(tmp_path, CAMERA)
    assert last.position == 5
    assert len(list(tmp_path.glob("*.ledger.json"))) == 3  # the one with frames, the one before this, this one
    last.close()


def test_everything_shed_stays_accounted_for_when_the_ledger_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=300_000))
    while spool.bytes < 299_000:
        fill(spool, 1, 1000)
    seq = spool.current.next
    with monkeypatch.context() as patch:
        patch.setattr("producers.spool.ledgers.write_ledger", no_space)
        assert spool.append(bytes(1000), seq, 1000, 1) == seq  # published: nobody may append it again
    assert spool.current.next == seq + 1
    assert spool.current.shed
    [outdated] = spool.ledgers.outdated()
    spool.ledgers.revise(outdated)
    [boot] = scan_spool(tmp_path)
    assert boot.next == seq + 1
    assert RangeSet([(0, seq)]).minus(boot.shed) == boot.waiting
    spool.close()


def overloaded(spool: Spool, groups: int) -> set[int]:
    """Confirm one frame in each round and shed the others; the confirmed ones."""
    confirmed: set[int] = set()
    while len(confirmed) < groups:
        before = len(spool.current.shed)
        while len(spool.current.shed) == before:
            fill(spool, 1, 20_000)
        seq = min(seq for _, seq in spool._frames)
        spool.confirm(spool.current.boot_id, [(seq, seq)])
        confirmed.add(seq)
    return confirmed


def test_a_spool_that_sheds_for_long_keeps_its_ledger_within_what_the_server_accepts(tmp_path: Path) -> None:
    keys = KeyRing(b"a fleet secret of thirty-two byte")
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=200_000))
    confirmed = overloaded(spool, 2 * MAX_SHED_RANGES)
    message = spool.current.to_message()
    accepted = open_ledger(CAMERA, sign_message(keys.current(CAMERA), message), keys)
    shed = RangeSet((each.first, each.last) for each in accepted.shed)
    gone = set(range(accepted.confirmed_to)) - confirmed
    assert len(accepted.shed) == MAX_SHED_RANGES
    assert gone <= set(shed)
    assert all(seq < accepted.confirmed_to for seq in shed)
    spool.ledgers.save(spool.current)
    kill(spool)
    again = Spool(tmp_path, CAMERA, SpoolLimits(max_bytes=200_000))
    assert again.frames == spool.frames  # a joined range holds no frame that waits
    again.close()


def test_ranges_behind_frames_that_wait_are_not_joined(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    fill(spool, 400)
    ledger = spool.current
    for seq in range(1, 400, 2):
        ledger.shed.add(seq)
    spool.ledgers.revise(ledger)
    assert len(ledger.shed) == 200
    assert len(ledger.to_message().shed) == MAX_SHED_RANGES
    spool.close()
