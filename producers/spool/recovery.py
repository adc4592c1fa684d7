"""Recovery of earlier boots in a spool: their ledgers are updated, their frames found, and damage counted."""

from __future__ import annotations

import contextlib
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from producers.spool.damage import Damage, missing_frames
from producers.spool.ledger import (
    BootLedger,
    ledger_boot,
    ledgers_among,
    read_ledgers,
    remove_ledger,
    write_ledger,
)
from producers.spool.segment import SUFFIX as SEGMENT_SUFFIX
from producers.spool.segment import Record, Segment, SegmentContent, end_segment, read_segment, segment_path
from schemas.clock import unix_ms
from schemas.errors import StateError
from schemas.identity import CameraId
from schemas.ranges import RangeSet
from schemas.runtime.atomic_file import UNFINISHED

_LEAST_REBUILT: Final = 2**40
"""Lowest revision of a rebuilt ledger: the milliseconds from 1970 to 2004.

Revisions are counted from 1. On a device without a battery, the clock may have begun in 1970 a moment ago. A ledger
that is rebuilt twice by such a clock has the same revision twice, and the second one is ignored.
"""

_log = structlog.get_logger()


@dataclass(frozen=True)
class RecoveredSpool:
    """Closed ledgers of earlier boots, and their segments, oldest first, with the records that still wait."""

    boots: list[BootLedger]
    segments: deque[Segment]
    records: list[list[Record]]
    clock_ms: int
    """The last known time of the spool's clock."""
    damage: Damage
    position_lost: bool
    """Whether a ledger is lost that may be the last boot's, and with it the latest position of the source."""


def recover(folder: Path, camera_id: CameraId) -> RecoveredSpool:
    """Close every earlier boot and collect its waiting frames; frames whose bytes are missing are shed.

    The caller holds the folder's lock. Raises `StateError` when the folder belongs to another camera.
    """
    paths = list(folder.iterdir())
    for path in paths:
        if path.name.startswith(".") and path.name.endswith(UNFINISHED):
            path.unlink()
    boots, damaged = _ledgers(folder, ledgers_among(paths), camera_id)
    contents = _contents(paths)
    rebuilt = {boot_id: _rebuilt(camera_id, files) for boot_id, files in contents.items() if boot_id not in boots}
    position_lost = _order(rebuilt, boots, contents) or bool(damaged - contents.keys())
    boots.update(rebuilt)
    frames_gone = sum(_bring_up_to_date(boots[boot_id], files) for boot_id, files in contents.items())
    waiting = {boot_id: [_waiting(boots[boot_id], file) for file in files] for boot_id, files in contents.items()}
    clock_ms = _clock_ms(boots, contents)
    for ledger in boots.values():
        _close(folder, ledger, [record for records in waiting.get(ledger.boot_id, []) for record in records], clock_ms)
    segments: deque[Segment] = deque()
    kept = []
    for boot_id in sorted(contents, key=lambda boot: (boots[boot].ordinal, boots[boot].started_ms)):
        for file, records in zip(contents[boot_id], waiting[boot_id], strict=True):
            path = segment_path(folder, boot_id, file.first)
            if records:
                if file.open or file.unreadable_bytes:
                    with contextlib.suppress(OSError):  # the next start does it
                        end_segment(path, file)
                segments.append(_segment(path, file, records))
                kept.append(records)
            else:
                path.unlink()
    _drop_unused(folder, boots)
    damage = Damage(frames_gone, len(damaged))
    return RecoveredSpool(list(boots.values()), segments, kept, clock_ms, damage, position_lost)


def _ledgers(folder: Path, paths: Iterable[Path], camera_id: CameraId) -> tuple[dict[int, BootLedger], set[int]]:
    """Return the ledgers by boot, and the boots whose ledgers have no intact copy, and are lost."""
    ledgers, damaged = {}, set()
    for path in paths:
        copies = list(read_ledgers(path))
        ledger = next((each for each in copies if each is not None), None)
        if None in copies:
            _log.warning("spool_ledger_damaged", file=str(path), copy_whole=ledger is not None)
            if ledger is not None:
                # Both are written again with a revision above the damaged one: the copy may hold an earlier revision.
                ledger.revision += 1
                ledger.reported = ()
        if ledger is None:
            damaged.add(ledger_boot(path))
            remove_ledger(folder, ledger_boot(path))
        elif ledger.camera_id != camera_id:
            raise StateError(
                f"spool {folder}: expected one of {camera_id}, got one of {ledger.camera_id}. Choose another folder."
            )
        else:
            ledgers[ledger.boot_id] = ledger
    return ledgers, damaged


def _contents(paths: Iterable[Path]) -> dict[int, list[SegmentContent]]:
    """Return the content of the segment files among `paths`, by boot and in order."""
    found: dict[int, list[SegmentContent]] = defaultdict(list)
    for path in paths:
        if not path.name.endswith(SEGMENT_SUFFIX):
            continue
        content = read_segment(path)
        if content is None:
            _log.warning("spool_file_unknown", file=str(path))
        else:
            found[content.boot_id].append(content)
    for files in found.values():
        files.sort(key=lambda file: file.first)
    return found


def _bring_up_to_date(ledger: BootLedger, files: list[SegmentContent]) -> int:
    """Enter the frames of the segments that the ledger lacks. Returns the number of frames shed as damaged."""
    lost = missing_frames(files, ledger.next, ledger.closed)
    lost.remove(0, ledger.confirmed_to - 1)
    lost = lost.minus(ledger.shed)
    ledger.shed.update(lost)
    records = [record for file in files for record in file.records]
    published = max(file.next for file in files)
    if published > ledger.next:
        ledger.next = published
        if records:
            ledger.position = max(ledger.position, records[-1].position + 1)
    if lost:
        _log.error("spool_frames_damaged", camera=ledger.camera_id, boot=f"{ledger.boot_id:016x}", frames=len(lost))
    return len(lost)


def _rebuilt(camera_id: CameraId, files: list[SegmentContent]) -> BootLedger:
    """Rebuild a missing ledger from its segments.

    Whether the missing frames were confirmed or shed is unknown: they are entered as shed. The audit accepts that only
    for frames that nobody has recorded.
    """
    now_ms = unix_ms()
    records = [record for file in files for record in file.records]
    started_ms = min([record.captured_ms for record in records] + [now_ms])
    ledger = BootLedger(camera_id, files[0].boot_id, ordinal=0, started_ms=started_ms)
    # The server may hold revisions of the lost file: the new revision must be higher.
    ledger.revision = max(now_ms, _LEAST_REBUILT)
    ledger.next = max(file.next for file in files)
    if records:
        ledger.position = records[-1].position + 1
    ledger.shed = RangeSet([(0, ledger.next - 1)])
    for file in files:
        ledger.shed.remove(file.first, file.next - 1)
    _log.error(
        "spool_ledger_rebuilt", camera=camera_id, boot=f"{ledger.boot_id:016x}", frames_taken_for_shed=len(ledger.shed)
    )
    return ledger


def _order(
    rebuilt: Mapping[int, BootLedger], whole: Mapping[int, BootLedger], contents: Mapping[int, list[SegmentContent]]
) -> bool:
    """Set the ordinals of the rebuilt ledgers: before all others, except for boots that surely came after them.

    The times of the boots' frames by the spool's clock decide. A whole ledger without a frame has the time of its last
    save, which may be after later boots: then a rebuilt boot counts as earlier, and frames are repeated, not lost.
    Return whether a rebuilt boot may be the last, whose position of the source is lost with its ledger.
    """
    latest_ms = {
        boot_id: max((record.spooled_ms for file in files for record in file.records), default=0)
        for boot_id, files in contents.items()
    }
    framed_ms = max((latest_ms.get(boot_id, 0) for boot_id in whole), default=0)
    saved_ms = max((latest_ms.get(boot_id) or ledger.clock_ms for boot_id, ledger in whole.items()), default=0)
    ordinal = max((ledger.ordinal for ledger in whole.values()), default=0)
    for boot_id in sorted(rebuilt, key=latest_ms.__getitem__):
        if latest_ms[boot_id] > saved_ms:
            ordinal += 1
            rebuilt[boot_id].ordinal = ordinal
    return any(not latest_ms[boot_id] or latest_ms[boot_id] > framed_ms for boot_id in rebuilt)


def _waiting(ledger: BootLedger, file: SegmentContent) -> list[Record]:
    """Return the records that are neither confirmed nor shed."""
    return [r for r in file.records if r.seq >= ledger.confirmed_to and r.seq not in ledger.shed]


def _clock_ms(boots: Mapping[int, BootLedger], contents: Mapping[int, list[SegmentContent]]) -> int:
    noted = [ledger.clock_ms for ledger in boots.values()]
    noted += [record.spooled_ms for files in contents.values() for file in files for record in file.records]
    return max(noted, default=0)


def _close(folder: Path, ledger: BootLedger, waiting: list[Record], clock_ms: int) -> None:
    """Make the closing revision durable, unless the latest one is equal."""
    ledger.confirmed_to = waiting[0].seq if waiting else ledger.next
    ledger.join_shed()
    counts = ledger.counts(ledger.confirmed_to)
    if not ledger.closed or ledger.reported != counts:
        ledger.closed = True
        ledger.revision += 1
        ledger.reported = counts
        ledger.clock_ms = clock_ms
        write_ledger(folder, ledger)


def _segment(path: Path, file: SegmentContent, waiting: list[Record]) -> Segment:
    times = [record.spooled_ms for record in waiting]
    return Segment(path, file.boot_id, file.first, file.next, file.size, len(waiting), min(times), max(times))


def _drop_unused(folder: Path, boots: dict[int, BootLedger]) -> None:
    """Remove boots that published nothing and were never reported: failed starts may be many.

    The last boot stays, for the position of the source.
    """
    last = max((ledger.ordinal for ledger in boots.values()), default=0)
    for ledger in list(boots.values()):
        if not (ledger.next or ledger.frames_skipped or ledger.confirmed_revision) and ledger.ordinal != last:
            remove_ledger(folder, ledger.boot_id)
            del boots[ledger.boot_id]
