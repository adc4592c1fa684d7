"""The files of a spool's ledger: overwritten in place, and complete at every read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.spool import BootLedger, Spool
from producers.spool.ledger import ledger_path, read_ledger, read_ledgers, write_ledger
from schemas.errors import StateError
from schemas.identity import CameraId
from schemas.ranges import RangeSet

CAMERA = CameraId("lab/cam")


def inodes(folder: Path) -> set[int]:
    return {path.stat().st_ino for path in folder.glob("*.ledger.*")}


def test_a_revision_overwrites_the_files_in_place(tmp_path: Path) -> None:
    spool = Spool(tmp_path, CAMERA)
    before = inodes(tmp_path)
    for seq in range(20):
        spool.append(bytes(100), seq, 1000, 1)
        spool.ledgers.revise(spool.current)
    assert len(before) == 2
    assert inodes(tmp_path) == before
    spool.close()


def test_rewinding_a_new_spool_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, CAMERA)
    with monkeypatch.context() as patch:
        patch.setattr("producers.spool.ledgers.write_ledger", None)
        spool.rewind()
    spool.close()


@settings(max_examples=50, deadline=None)
@given(shed=st.lists(st.sets(st.integers(0, 400), max_size=200), min_size=1, max_size=6))
def test_the_last_ledger_is_read_for_any_lengths_of_it_and_its_predecessor(
    tmp_path_factory: pytest.TempPathFactory, shed: list[set[int]]
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    for revision, numbers in enumerate(shed):
        ledger = BootLedger(CAMERA, 7, 1, 1000, next=401, revision=revision)
        ledger.shed = RangeSet((number, number) for number in numbers)
        write_ledger(folder, ledger)
        found = list(read_ledgers(ledger_path(folder, 7)))
        assert [(each.revision, each.shed) for each in found if each] == 2 * [(revision, ledger.shed)]
        assert {path.stat().st_size % 512 for path in folder.iterdir()} == {0}


@pytest.mark.parametrize("after", [0, 1, 100, 505])
def test_a_ledger_torn_by_a_kill_leaves_its_predecessor(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ledger(tmp_path, BootLedger(CAMERA, 7, 1, 1000, next=3))
    pwrite = os.pwrite

    def torn(fd: int, data: bytes, offset: int) -> int:
        pwrite(fd, data[:after], offset)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("producers.spool.ledger.os.pwrite", torn)
        with pytest.raises(KeyboardInterrupt):
            write_ledger(tmp_path, BootLedger(CAMERA, 7, 1, 1000, next=99_999_999))
    found = read_ledger(ledger_path(tmp_path, 7))
    assert found is not None
    assert found.next == 3


def test_a_partly_written_ledger_raises_an_error_and_the_copy_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, CAMERA)
    spool.append(bytes(100), 0, 1000, 1)
    pwrite, before = os.pwrite, spool.current.revision
    with monkeypatch.context() as patch:
        patch.setattr("producers.spool.ledger.os.pwrite", lambda fd, data, at: pwrite(fd, data[:64], at))
        with pytest.raises(StateError, match="expected a writable folder"):
            spool.ledgers.revise(spool.current)
    found = read_ledger(ledger_path(tmp_path, spool.current.boot_id))
    assert found is not None
    assert found.revision == before
    spool.close()
