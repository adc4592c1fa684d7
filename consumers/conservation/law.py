"""The conservation law: published = recorded ∪ dead-lettered ∪ shed ∪ pending, as sets of identities. Pure.

Anything else is lost, and a defect. Whoever gathers the sets reads in the direction in which frames move, so that a
frame that moves on meanwhile is seen at least once.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import TypedDict

from consumers.conservation.ledgers import SignedLedger
from consumers.reading.rows import SummedRow
from schemas.identity import CameraId
from schemas.ranges import RangeSet


@dataclass
class BootAudit:
    """What became of the frames of one boot of one camera."""

    camera_id: CameraId
    boot_id: int
    started_ms: int = 0
    published: RangeSet = field(default_factory=RangeSet)
    recorded: RangeSet = field(default_factory=RangeSet)
    dead_lettered: RangeSet = field(default_factory=RangeSet)
    shed: RangeSet = field(default_factory=RangeSet)
    pending: RangeSet = field(default_factory=RangeSet)
    lost: RangeSet = field(default_factory=RangeSet)
    unread: RangeSet = field(default_factory=RangeSet)
    """What would be lost if the part of the database that could not be read does not name it."""
    duplicates: int = 0
    frames_skipped: int = 0
    frames_resent: int = 0
    bytes_resent: int = 0

    def take_ledger(self, early: SignedLedger | None, late: SignedLedger | None, *, spooled: bool) -> None:
        """What was published comes from the ledger read first: what a later one adds may still be on its way.

        A boot that only the later reading knows, and no spool, is one of an unreachable camera.
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
        """Give each frame one fate: recorded before dead-lettered before shed before pending; the rest is lost.

        `confirmed_to` is for a boot whose spool cannot be read: what is missing from there on may wait in it.
        """
        # What a verified record names was published, whether its ledger has come yet or not.
        for seen in (self.recorded, self.dead_lettered, self.pending):
            self.published.update(seen)
        self.dead_lettered = self.dead_lettered.minus(self.recorded)
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


class Lost(TypedDict):
    """What one boot of a camera has lost."""

    camera_id: str
    """The camera, as `site/camera`."""
    boot_id: str
    """16 hexadecimal digits: one start of the camera."""
    ranges: list[tuple[int, int]]
    """First and last sequence number of each run of lost frames."""


@dataclass(frozen=True)
class Counts:
    """The sums over boots; `frames_lost` 0 and `frames_pending` 0 is what a finished run must show."""

    frames_published: int
    """Frames that cameras have appended to their spools: the sum of the next six."""
    frames_recorded: int
    """Those whose verdict is in the database."""
    frames_dead_lettered: int
    """Those that were refused, with a verified identity."""
    frames_shed: int
    """Those that a full spool has dropped, or that its medium has damaged."""
    frames_pending: int
    """Those that are still on their way: in a spool, or in Kafka."""
    frames_lost: int
    """Those that are nowhere: a defect."""
    frames_unread: int
    """Those that would be lost if the part of the database that cannot be read does not name them."""
    duplicates_removed: int
    """Verdicts of frames that were recorded already."""
    frames_skipped: int
    """Pictures that a live source passed over before publication."""
    frames_resent: int
    """Second and later sends of frames."""
    bytes_resent: int
    """Their bytes."""
    frames_foreign: int
    """Payloads without a verified identity, refused."""

    @classmethod
    def of(cls, boots: Collection[BootAudit], foreign: int, summed: Collection[SummedRow] = ()) -> Counts:
        """Add up `boots`, the `summed` ledgers, and the `foreign` payloads, which belong to no boot."""
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

    def as_dict(self) -> dict[str, int]:
        """By the names of the report."""
        return asdict(self)
