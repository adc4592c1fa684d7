"""What the audit reads of a spool that its camera uses at the same time: no frame has two fates, and none has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from producers.spool import Spool, SpoolBoot, SpoolLimits, scan_spool
from producers.spool import scan as scan_module
from schemas.ranges import RangeSet
from tests.producers.test_spool_accounts import CAMERA, Clock, fill


def scan_while(
    monkeypatch: pytest.MonkeyPatch, folder: Path, before: Callable[[], None], after: Callable[[], None]
) -> list[SpoolBoot]:
    """Scan while the camera does something between the ledgers and the segments, and something after them."""
    held = scan_module._held

    def meanwhile(place: Path) -> object:
        before()
        found = held(place)
        after()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(scan_module, "_held", meanwhile)
        return scan_spool(folder)


def nothing() -> None:
    pass


def test_what_is_shed_between_the_ledgers_and_the_segments_is_shed(
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


def test_what_is_published_and_shed_after_the_segments_were_read_is_not_published_yet(
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


def test_a_boot_that_is_settled_meanwhile_is_told_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
