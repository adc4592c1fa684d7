"""The conservation law: published = recorded ∪ dead-lettered ∪ shed ∪ pending, as sets of identities. Pure.

Any other frame is lost, which is a defect. Callers must collect the sets in the direction in which frames move. A frame
that moves during the collection then appears in at least one set.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import TypedDict

from consumers.conservation.ledgers import SignedLedger
from consumers.records.rows import SummedRow
from schemas.identity import CameraId
from schemas.ranges import RangeSet


@dataclass
class BootAudit:
    """The fate of each frame of one boot of a camera."""

    camera_id: CameraId
    boot_id: int
    started_ms: int = 0
    published: RangeSet = field(default_factory=RangeSet)
    recorded: RangeSet = field(default_factory=RangeSet)
    dead_lettered: RangeSet = field(default_factory=RangeSet)
    shed: RangeSet = field(default_factory=RangeSet)
    pending: RangeSet = field(default_factory=RangeSet)
    in_kafka: RangeSet = field(default_factory=RangeSet)
    """Frames in Kafka that are neither recorded nor dead-lettered: they need no camera any more."""
    lost: RangeSet = field(default_factory=RangeSet)
    unread: RangeSet = field(default_factory=RangeSet)
    """Frames that are lost unless the unreadable part of the database holds them."""
    duplicates: int = 0
    frames_skipped: int = 0
    frames_resent: int = 0
    bytes_resent: int = 0

    def take_ledger(self, early: SignedLedger | None, late: SignedLedger | None, *, spooled: bool) -> None:
        """Set the published frames from the ledger that was read first.

        Frames that only the later ledger adds may still be in flight. If only the later reading found the boot, and no
        spool exists, its camera is unreachable.
        """
        first = early or (late if not spooled else None)
        if first is not None:
            self.published.add(first.first, first.next - 1)
        for row in (early, late):
            if row is not None:
                self.started_ms = row.started_ms
                self.shed.update(row.shed)
                self.frames_skipped = max(self.frames_skipped, row.frames_skipped)
                self.frames_resent = max(self.frames_resent, row.frames_resent)
                self.bytes_resent = max(self.bytes_resent, row.bytes_resent)

    def settle(self, confirmed_to: int | None) -> None:
        """Give each frame one fate: recorded before dead-lettered before shed before pending. The rest is lost.

        Pass `confirmed_to` if the spool of the boot cannot be read. Frames missing from that number on may wait in the
        spool.
        """
        # A frame with a verified record was published, even if its ledger has not arrived yet.
        for seen in (self.recorded, self.dead_lettered, self.pending):
            self.published.update(seen)
        self.dead_lettered = self.dead_lettered.minus(self.recorded)
        self.in_kafka = self.in_kafka.minus(self.recorded).minus(self.dead_lettered)
        self.shed = self.shed.minus(self.recorded).minus(self.dead_lettered)
        self.pending = self.pending.minus(self.recorded).minus(self.dead_lettered).minus(self.shed)
        left = self.published
        for fate in (self.recorded, self.dead_lettered, self.shed, self.pending):
            left = left.minus(fate)
        if confirmed_to is not None:
            out_of_sight = RangeSet((max(first, confirmed_to), last) for first, last in left.ranges())
            self.pending.update(out_of_sight)
            left = left.minus(out_of_sight)
        self.lost = left

    def may_be_in(self, set_aside_ms: int) -> bool:
        """Return whether a database that was set aside at this Unix time, 0 for none, may hold frames of this boot."""
        return set_aside_ms > 0 and self.started_ms <= set_aside_ms


class LostFrames(TypedDict):
    """The lost frames of one boot of a camera."""

    camera_id: str
    """The camera, as `site/camera`."""
    boot_id: str
    """Id of one start of the camera: 16 hexadecimal digits."""
    ranges: list[tuple[int, int]]
    """First and last sequence number of each range of lost frames."""


@dataclass(frozen=True)
class Counts:
    """The sums over boots. A finished run must have `frames_lost` 0 and `frames_pending` 0."""

    frames_published: int
    """Frames that cameras have appended to their spools: the sum of the next six."""
    frames_recorded: int
    """Frames whose verdict is in the database."""
    frames_dead_lettered: int
    """Rejected frames with a verified identity."""
    frames_shed: int
    """Frames deleted from a spool without a verdict: it was full, or they were too old, too large for the broker or
    Kafka, damaged, or signed with an earlier key."""
    frames_pending: int
    """Frames in flight: in a spool or in Kafka."""
    frames_lost: int
    """Frames that are nowhere: a defect."""
    frames_unread: int
    """Frames that are lost unless the unreadable part of the database holds them."""
    duplicates_removed: int
    """Verdicts of frames that were already recorded."""
    frames_skipped: int
    """Frames that a live source skipped before publication."""
    frames_resent: int
    """Second and later sends of frames."""
    bytes_resent: int
    """Bytes of these resent frames."""
    frames_foreign: int
    """Payloads without a verified identity, all rejected."""

    @classmethod
    def of(cls, boots: Collection[BootAudit], foreign: int, summed: Collection[SummedRow] = ()) -> Counts:
        """Add up `boots`, the `summed` ledgers and the `foreign` payloads, which belong to no boot."""
        return cls(
            frames_published=sum(len(b.published) for b in boots) + sum(s.shed + s.pending + s.lost for s in summed),
            frames_recorded=sum(len(b.recorded) for b in boots),
            frames_dead_lettered=sum(len(b.dead_lettered) for b in boots),
            frames_shed=sum(len(b.shed) for b in boots) + sum(s.shed for s in summed),
            frames_pending=sum(len(b.pending) for b in boots) + sum(s.pending for s in summed),
            frames_lost=sum(len(b.lost) for b in boots) + sum(s.lost for s in summed),
            frames_unread=sum(len(b.unread) for b in boots),
            duplicates_removed=sum(b.duplicates for b in boots),
            frames_skipped=sum(b.frames_skipped for b in boots) + sum(s.frames_skipped for s in summed),
            frames_resent=sum(b.frames_resent for b in boots) + sum(s.frames_resent for s in summed),
            bytes_resent=sum(b.bytes_resent for b in boots) + sum(s.bytes_resent for s in summed),
            frames_foreign=foreign,
        )

    @property
    def undecided(self) -> int:
        """Frames whose fate is not final: pending, lost or unread."""
        return self.frames_pending + self.frames_lost + self.frames_unread

    def as_dict(self) -> dict[str, int]:
        """Return the counts by their names in the report."""
        return asdict(self)
