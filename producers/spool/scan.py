"""Reading spools from outside, for the audit: without the lock, and without changing anything."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from producers.spool.damage import missing_frames
from producers.spool.ledger import BootLedger, ledger_paths, read_ledger
from producers.spool.segment import SUFFIX as SEGMENT_SUFFIX
from producers.spool.segment import SegmentContent, read_segment
from schemas.identity import SEQ_LIMIT, CameraId
from schemas.ranges import RangeSet


@dataclass(frozen=True)
class SpoolBoot:
    """The state of one boot on disk: it published 0 .. `next` − 1, shed some, and still holds `waiting`.

    `waiting` may include frames that Kafka holds already, because confirmations are written only at intervals. `shed`
    includes frames with damaged bytes, whether or not the camera has found them.
    """

    camera_id: CameraId
    boot_id: int
    started_ms: int
    next: int
    shed: RangeSet
    waiting: RangeSet
    revision: int
    closed: bool
    frames_skipped: int
    frames_resent: int
    bytes_resent: int


def scan_spool(folder: Path) -> list[SpoolBoot]:
    """Return all boots of all cameras whose spools lie under `folder`, in order of camera and start.

    A camera may be running. Its ledgers are read before its segments (a frame appended in between is not counted as
    published yet) and again after them (a segment shed in between is in the later ledger).
    """
    before = _ledgers(folder)
    held = _segment_contents(folder)
    after = _ledgers(folder)
    boots = []
    for path, early in before.items():
        late = after.get(path, early)
        files = held.get((path.parent, early.boot_id), [])
        damaged = missing_frames(files, early.next, early.closed)
        waiting = RangeSet((file.first, file.next - 1) for file in files).minus(damaged)
        published = max([early.next, *(file.next for file in files)])
        for part in (waiting, damaged):
            part.remove(0, late.confirmed_to - 1)
        late.shed.update(damaged)
        late.shed.remove(published, SEQ_LIMIT)
        boots.append(
            SpoolBoot(
                camera_id=early.camera_id,
                boot_id=early.boot_id,
                started_ms=early.started_ms,
                next=published,
                shed=late.shed,
                waiting=waiting.minus(late.shed),
                revision=late.revision,
                closed=late.closed,
                frames_skipped=late.frames_skipped,
                frames_resent=late.frames_resent,
                bytes_resent=late.bytes_resent,
            )
        )
    return sorted(boots, key=lambda boot: (boot.camera_id, boot.started_ms, boot.boot_id))


def _ledgers(folder: Path) -> dict[Path, BootLedger]:
    return {path: ledger for path in ledger_paths(folder) if (ledger := read_ledger(path)) is not None}


def _segment_contents(folder: Path) -> dict[tuple[Path, int], list[SegmentContent]]:
    """Return the content of the segment files, by folder and boot, in order."""
    held: dict[tuple[Path, int], list[SegmentContent]] = defaultdict(list)
    for path in folder.rglob(f"*{SEGMENT_SUFFIX}"):
        try:
            content = read_segment(path)
        except FileNotFoundError:
            continue
        if content is not None:
            held[path.parent, content.boot_id].append(content)
    for files in held.values():
        files.sort(key=lambda file: file.first)
    return held
