"""The durable ledger of one boot: what it has published, what the full spool shed, where its source stands."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from schemas.atomic_file import replacing
from schemas.identity import CameraId
from schemas.pointillist_pb2 import Ledger, Range
from schemas.ranges import RangeSet

SUFFIX: Final = ".ledger.json"


@dataclass(slots=True, eq=False)
class BootLedger:
    """One process start of one camera. Frames 0 .. `next` - 1 were published by it.

    `ordinal` counts the boots of the spool, `position` is where the source goes on, frames below `confirmed_to` are
    known to be held by Kafka or shed. `confirmed_revision` is the highest that the server is known to hold, `reported`
    are the counts that the latest revision was made for.
    """

    camera_id: CameraId
    boot_id: int
    ordinal: int
    started_ms: int
    next: int = 0
    position: int = 0
    shed: RangeSet = field(default_factory=RangeSet)
    revision: int = 1
    confirmed_revision: int = 0
    confirmed_to: int = 0
    closed: bool = False
    frames_skipped: int = 0
    frames_resent: int = 0
    bytes_resent: int = 0
    reported: tuple[int, ...] = (0, 0, 0, 0)

    @property
    def counts(self) -> tuple[int, ...]:
        """What may move without a new revision: `next`, frames skipped, frames resent, `confirmed_to`."""
        return self.next, self.frames_skipped, self.frames_resent, self.confirmed_to

    def to_message(self) -> Ledger:
        """The record for the audit, unsigned."""
        return Ledger(
            boot_id=self.boot_id,
            revision=self.revision,
            started_ms=self.started_ms,
            first=0,
            next=self.next,
            shed=[Range(first=first, last=last) for first, last in self.shed.ranges()],
            closed=self.closed,
            frames_skipped=self.frames_skipped,
            frames_resent=self.frames_resent,
            bytes_resent=self.bytes_resent,
            written_ms=time.time_ns() // 10**6,
            confirmed_to=self.confirmed_to,
        )


def ledger_path(folder: Path, boot_id: int) -> Path:
    """Where the ledger of a boot lies."""
    return folder / f"{boot_id:016x}{SUFFIX}"


def write_ledger(folder: Path, ledger: BootLedger) -> None:
    """Replace the file in one step: a killed process leaves the old one or the new one, never half of one."""
    text = json.dumps(
        {
            "camera_id": ledger.camera_id,
            "boot_id": ledger.boot_id,
            "ordinal": ledger.ordinal,
            "started_ms": ledger.started_ms,
            "next": ledger.next,
            "position": ledger.position,
            "shed": list(ledger.shed.ranges()),
            "revision": ledger.revision,
            "confirmed_revision": ledger.confirmed_revision,
            "confirmed_to": ledger.confirmed_to,
            "closed": ledger.closed,
            "frames_skipped": ledger.frames_skipped,
            "frames_resent": ledger.frames_resent,
            "bytes_resent": ledger.bytes_resent,
            "reported": ledger.reported,
        }
    )
    with replacing(ledger_path(folder, ledger.boot_id)) as fresh:
        fresh.write_text(text)


def read_ledger(path: Path) -> BootLedger | None:
    """Read back what `write_ledger` wrote; None when the file is damaged, as a power failure may leave it."""
    try:
        values = json.loads(path.read_text())
        values["shed"] = RangeSet((int(first), int(last)) for first, last in values["shed"])
        values["reported"] = tuple(int(count) for count in values.get("reported", ()))
        return BootLedger(**values)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
