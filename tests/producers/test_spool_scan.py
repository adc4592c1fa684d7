"""The audit's scan of a spool in use: each frame has one fate."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from producers.spool import Spool, SpoolBoot, SpoolLimits, scan_spool
from producers.spool import scan as scan_module
from producers.spool.segment import SUFFIX, read_segment
from schemas.ranges import RangeSet
from tests.clocks import Clock
from tests.producers.spool_rig import CAMERA, fill


def scan_while(
    monkeypatch: pytest.MonkeyPatch, folder: Path, before: Callable[[], None], after: Callable[[], None]
) -> list[SpoolBoot]:
    """Scan a spool; the camera calls `before` between the ledgers and the segments, and `after` after the segments."""
    read_segments = scan_module._segment_contents

    def meanwhile(place: Path) -> object:
        before()
        found = read_segments(place)
        after()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(scan_module, "_segment_contents", meanwhile)
        return scan_spool(folder)


def nothing() -> None:
    pass


def test_a_scan_reads_the_counts_of_a_running_camera_and_changes_nothing(tmp_path: Path) -> None:
    before_ms, folder = time.time_ns() // 10**6, tmp_path / "lab" / "cam"
    spool = Spool(folder, CAMERA)
    boot_id = fill(spool, 7)
    spool.current.frames_skipped = 6
    for payload_bytes in (100, 50):
        spool.ledgers.count_resent(boot_id, payload_bytes)
    spool.ledgers.revise(spool.current)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    [boot] = scan_spool(tmp_path)
    assert (boot.camera_id, boot.boot_id, boot.next) == (CAMERA, boot_id, 7)
    assert (boot.frames_skipped, boot.frames_resent, boot.bytes_resent) == (6, 2, 150)
    assert (boot.revision, boot.closed, boot.waiting) == (2, False, RangeSet([(0, 6)]))
    assert before_ms <= boot.started_ms <= time.time_ns() // 10**6
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert scan_spool(tmp_path / "nothing") == []
    spool.close()


def test_a_frame_shed_between_ledgers_and_segments_counts_as_shed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_age_s=16), clock)
    fill(spool, 4)
    clock.now_s = 2.0
    fill(spool, 3)
    spool.ledgers.revise(spool.current)
    clock.now_s = 17.0
    [boot] = scan_while(monkeypatch, tmp_path, spool.shed_old, nothing)
    assert (boot.next, boot.shed, boot.waiting) == (7, RangeSet([(0, 3)]), RangeSet([(4, 6)]))
    spool.close()


def test_frames_published_after_the_segments_were_read_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    spool = Spool(tmp_path, CAMERA, SpoolLimits(max_age_s=16), clock)
    fill(spool, 4)
    spool.ledgers.revise(spool.current)

    def publish_and_shed() -> None:
        fill(spool, 3)
        clock.now_s = 17.0
        spool.shed_old()

    [boot] = scan_while(monkeypatch, tmp_path, nothing, publish_and_shed)
    assert (boot.next, boot.shed, boot.waiting) == (4, RangeSet([(0, 3)]), RangeSet())
    assert list(spool.current.shed) == list(range(7))
    spool.close()


def test_a_boot_settled_during_the_scan_is_reported_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Spool(tmp_path, CAMERA)
    boot_id = fill(first, 2)
    first.close()
    spool = Spool(tmp_path, CAMERA)
    old = spool.ledgers.of(boot_id)

    def settle() -> None:
        spool.confirm(boot_id, [(0, 1)])
        spool.ledgers.confirm(boot_id, old.revision)

    boots = {boot.boot_id: boot for boot in scan_while(monkeypatch, tmp_path, settle, nothing)}
    assert (boots[boot_id].next, boots[boot_id].closed, boots[boot_id].shed) == (2, True, RangeSet())
    assert boot_id not in {boot.boot_id for boot in scan_spool(tmp_path)}
    spool.close()


def test_unknown_files_and_files_that_vanish_during_the_scan_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "cam", CAMERA)
    boot_id = fill(spool, 3)
    (tmp_path / "cam" / f"no-name{SUFFIX}").write_bytes(b"x")
    (tmp_path / "cam" / f"{boot_id:016x}-{9:016x}{SUFFIX}").write_bytes(b"")

    def vanishing(path: Path) -> object:
        if path.name.startswith(f"{boot_id:016x}-{9:016x}"):
            raise FileNotFoundError
        return read_segment(path)

    monkeypatch.setattr(scan_module, "read_segment", vanishing)
    [boot] = scan_spool(tmp_path)
    assert (boot.boot_id, boot.waiting) == (boot_id, RangeSet([(0, 2)]))
    spool.close()
