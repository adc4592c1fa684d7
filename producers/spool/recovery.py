"""What earlier boots left in a spool: their ledgers brought up to date, their frames found, torn records cut."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import structlog

from producers.spool.ledger import SUFFIX, BootLedger, ledger_path, read_ledger, write_ledger
from producers.spool.segment import SUFFIX as SEGMENT_SUFFIX
from producers.spool.segment import Record, Segment, read_segment, segment_name
from schemas.atomic_file import UNFINISHED
from schemas.errors import StateError
from schemas.identity import CameraId

_log = structlog.get_logger()


@dataclass(frozen=True)
class Past:
    """Closed ledgers of earlier boots, and their segments, oldest first, with the records that still wait."""

    boots: list[BootLedger]
    segments: deque[Segment]
    records: list[list[Record]]


def recover(folder: Path, camera_id: CameraId) -> Past:
    """Close every earlier boot and collect its waiting frames. The caller holds the folder's lock.

    Raises `StateError` when the folder belongs to another camera.
    """
    for path in folder.glob(f".*{UNFINISHED}"):
        path.unlink()
    boots = {boot.boot_id: boot for boot in _ledgers(folder, camera_id)}
    found: list[tuple[Segment, list[Record]]] = []
    for path in folder.glob(f"*{SEGMENT_SUFFIX}"):
        segment, records = _read(path)
        if not records:
            path.unlink()
            continue
        if segment.boot_id not in boots:
            boots[segment.boot_id] = _rebuilt(folder, camera_id, segment, records)
        found.append((segment, records))
    found.sort(key=lambda pair: (boots[pair[0].boot_id].ordinal, pair[0].first))
    for segment, records in found:
        ledger = boots[segment.boot_id]
        if segment.next > ledger.next:
            ledger.next, ledger.position = segment.next, records[-1].position + 1
    _drop_unused(folder, boots)
    kept = _waiting(found, boots)
    first_waiting: dict[int, int] = {}
    for segment, records in kept:
        first_waiting.setdefault(segment.boot_id, records[0].seq)
    for ledger in boots.values():
        ledger.confirmed_to = first_waiting.get(ledger.boot_id, ledger.next)
        if not ledger.closed or ledger.reported != ledger.counts:
            ledger.closed = True
            ledger.revision += 1
            ledger.reported = ledger.counts
            write_ledger(folder, ledger)
    return Past(list(boots.values()), deque(segment for segment, _ in kept), [records for _, records in kept])


def _ledgers(folder: Path, camera_id: CameraId) -> list[BootLedger]:
    ledgers = []
    for path in folder.glob(f"*{SUFFIX}"):
        ledger = read_ledger(path)
        if ledger is None:
            _log.warning("spool_ledger_damaged", file=str(path))
            path.unlink()
        elif ledger.camera_id != camera_id:
            raise StateError(f"{folder} is the spool of {ledger.camera_id}, expected that of {camera_id}")
        else:
            ledgers.append(ledger)
    return ledgers


def _drop_unused(folder: Path, boots: dict[int, BootLedger]) -> None:
    """Forget boots that published nothing and that nobody knows of: starts that failed may be many.

    The last boot stays, for the position of the source.
    """
    last = max((ledger.ordinal for ledger in boots.values()), default=0)
    for ledger in list(boots.values()):
        if not (ledger.next or ledger.frames_skipped or ledger.confirmed_revision) and ledger.ordinal != last:
            ledger_path(folder, ledger.boot_id).unlink(missing_ok=True)
            del boots[ledger.boot_id]


def _read(path: Path) -> tuple[Segment, list[Record]]:
    """A segment with its whole records; what follows them is cut off the file."""
    records = read_segment(path)
    boot_id, first = segment_name(path) or (0, 0)
    end = records[-1].offset + records[-1].length if records else 0
    if path.stat().st_size > end:
        os.truncate(path, end)
    times = [record.captured_ms for record in records]
    segment = Segment(path, boot_id, first, first + len(records), end, 0, min(times, default=0), max(times, default=0))
    return segment, records


def _rebuilt(folder: Path, camera_id: CameraId, segment: Segment, records: list[Record]) -> BootLedger:
    """A ledger in the place of one that is gone: what its segments tell. It comes before all others."""
    ledger = BootLedger(
        camera_id, segment.boot_id, ordinal=0, started_ms=min(segment.oldest_ms, time.time_ns() // 10**6)
    )
    # The server may hold revisions of the lost file: this one has to be above them.
    ledger.revision = time.time_ns() // 10**6
    ledger.next, ledger.position = segment.next, records[-1].position + 1
    write_ledger(folder, ledger)
    return ledger


def _waiting(
    found: list[tuple[Segment, list[Record]]], boots: dict[int, BootLedger]
) -> list[tuple[Segment, list[Record]]]:
    """The segments with the records that are neither confirmed nor shed; the others are removed from the disk."""
    kept = []
    for segment, records in found:
        ledger = boots[segment.boot_id]
        waiting = [r for r in records if r.seq >= ledger.confirmed_to and r.seq not in ledger.shed]
        if waiting:
            segment.waiting = len(waiting)
            kept.append((segment, waiting))
        else:
            segment.path.unlink()
    return kept
