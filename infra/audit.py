"""The audit: what became of every published frame, from durable records only.

published = recorded ∪ dead-lettered ∪ shed ∪ pending, as sets of identities; anything else is lost, and a defect.
The sources are read in the direction in which frames move (spools, Kafka's logs, database), so that a frame that moves
on during the audit of a running system is seen at least once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from consumers.database.damage import UNREADABLE, damaged_files, reason, set_aside_ms
from consumers.database.queries import Records, open_records
from consumers.reading.rows import LedgerRow
from consumers.reading.shed import shed_ranges
from infra.environment import Environment, role_roots
from infra.kafka_sets import Boot, KafkaSets
from infra.layout import Layout
from infra.signed_ledgers import SignedLedgers
from producers.spool import SpoolBoot, scan_spool
from schemas.errors import StateError
from schemas.identity import CameraId
from schemas.keys import KeyRing
from schemas.ranges import RangeSet
from schemas.roots import Role

T = TypeVar("T")


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


@dataclass(frozen=True)
class Counts:
    """The sums over boots; `frames_lost` 0 and `frames_pending` 0 is what a finished run must show."""

    frames_published: int
    frames_recorded: int
    frames_dead_lettered: int
    frames_shed: int
    frames_pending: int
    frames_lost: int
    frames_unread: int
    duplicates_removed: int
    frames_skipped: int
    frames_resent: int
    bytes_resent: int
    frames_foreign: int

    def as_dict(self) -> dict[str, int]:
        """By the names of the report."""
        return asdict(self)


@dataclass(frozen=True)
class Audit:
    """The audit of one state folder."""

    boots: list[BootAudit]
    foreign: int
    kafka_frames: int
    """Records of the frames topic that Kafka still holds, resends included."""
    frames_from_ms: int | None
    """Publication time of the oldest boot that the records still cover."""
    ledgers_refused: list[Boot]
    """Of the database, and signed by no camera: what they claim is not counted."""
    unread: tuple[str, ...] = ()
    """What could not be read, one line each; all else is counted."""

    def counts(self, since_ms: int = 0) -> Counts:
        """Sums over the boots that started at `since_ms` or later."""
        boots = [boot for boot in self.boots if boot.started_ms >= since_ms]
        return Counts(
            frames_published=sum(len(b.published) for b in boots),
            frames_recorded=sum(len(b.recorded) for b in boots),
            frames_dead_lettered=sum(len(b.dead_lettered) for b in boots),
            frames_shed=sum(len(b.shed) for b in boots),
            frames_pending=sum(len(b.pending) for b in boots),
            frames_lost=sum(len(b.lost) for b in boots),
            frames_unread=sum(len(b.unread) for b in boots),
            duplicates_removed=sum(b.duplicates for b in boots),
            frames_skipped=sum(b.frames_skipped for b in boots),
            frames_resent=sum(b.frames_resent for b in boots),
            bytes_resent=sum(b.bytes_resent for b in boots),
            frames_foreign=self.foreign,
        )


def unsettled(layout: Layout, since_ms: int = 0) -> int:
    """How many frames of the boots since then have no end yet: a look without Kafka's logs, for waiting."""
    counts = audit(layout, read_kafka=False).counts(since_ms)
    return counts.frames_pending + counts.frames_lost + counts.frames_unread


def audit(layout: Layout, *, read_kafka: bool = True) -> Audit:
    """Audit the state folder behind `layout`, running or not.

    What cannot be read, of the database or of Kafka's logs, is named in the result; all else is counted. Raises
    StateError when the folder holds no database, or one of another version, and SecretError without an auditor's
    secret, which says who has signed what.
    """
    if not layout.database.is_file():
        raise StateError(f"expected a state folder with {layout.database.name}, {layout.folder} has none")
    keys = _keys(layout)
    with open_records(layout.database_url) as records:
        database = _Database(layout.database, records, keys)
        database.ask("its version", records.check_version)
        signed = database.ledgers()
        early = signed.rows
        spools = {(spool.camera_id, spool.boot_id): spool for spool in scan_spool(layout.spool)}
        offsets = database.ask("the recorder's offsets", records.offsets) or {}
        kafka = KafkaSets.read(layout.kafka_data, offsets, keys) if read_kafka else KafkaSets()
        late = database.ledgers().rows
        places: set[Boot] = {*early, *spools, *late, *kafka.pending}
        places |= {(CameraId(camera), boot) for camera, boot in database.ask("the boots", records.boots) or ()}
        duplicates = database.ask("the duplicates", records.duplicates_by_boot) or {}
        boots = []
        for place in sorted(places):
            boot = BootAudit(*place)
            _take_ledger(boot, early.get(place), late.get(place), place in spools)
            if place in spools:
                _take_spool(boot, spools[place])
            boot.pending.update(kafka.pending.get(place, RangeSet()))
            complete = database.take_frames(boot)
            boot.duplicates = duplicates.get(place, 0)
            confirmed_to = late[place].confirmed_to if place in late and place not in spools else None
            _settle(boot, confirmed_to)
            if not complete:
                boot.lost, boot.unread = RangeSet(), boot.lost
            boots.append(boot)
        started = [boot.started_ms for boot in boots if boot.started_ms]
        return Audit(
            boots=sorted(boots, key=lambda b: (b.camera_id, b.started_ms, b.boot_id)),
            foreign=(database.ask("the foreign payloads", records.foreign_count) or 0) + kafka.foreign,
            kafka_frames=kafka.frames,
            frames_from_ms=min(started, default=None),
            ledgers_refused=signed.refused,
            unread=(*database.unread, *kafka.unread),
        )


class _Database:
    """The recorder's database as far as it can be read."""

    def __init__(self, file: Path, records: Records, keys: KeyRing) -> None:
        self._name = file.name
        self._records = records
        self._keys = keys
        aside = damaged_files(file)
        self._complete_from_ms = max((set_aside_ms(each) for each in aside), default=0)
        self._aside = [
            f"{each.name}: a damaged database that was set aside; what only it holds is not counted" for each in aside
        ]
        self._failed: dict[str, dict[str, None]] = {}

    @property
    def unread(self) -> list[str]:
        """One line for each reason, with all that could not be read for it."""
        failed = (f"{self._name}: {why}: cannot read {', '.join(what)}" for why, what in self._failed.items())
        return [*self._aside, *failed]

    def ask(self, what: str, query: Callable[[], T]) -> T | None:
        """What `query` gives; None where the database does not give it."""
        try:
            return query()
        except (*UNREADABLE, ValueError, TypeError) as error:
            self._failed.setdefault(reason(error), {})[what] = None
            return None

    def ledgers(self) -> SignedLedgers:
        """The highest revision of each boot's ledger that its camera has signed."""
        return SignedLedgers.read(self.ask("the ledgers", self._records.ledgers) or (), self._keys)

    def take_frames(self, boot: BootAudit) -> bool:
        """Enter the frames that are recorded and dead-lettered; false where some of them could not be read."""
        place = boot.camera_id, boot.boot_id
        recorded = self.ask("recorded frames", lambda: self._records.recorded(*place))
        dead_lettered = self.ask("dead letters", lambda: self._records.dead_lettered(*place))
        boot.recorded = recorded or RangeSet()
        boot.dead_lettered = dead_lettered or RangeSet()
        complete = not self._complete_from_ms or boot.started_ms > self._complete_from_ms
        return complete and recorded is not None and dead_lettered is not None


def _take_ledger(boot: BootAudit, early: LedgerRow | None, late: LedgerRow | None, spooled: bool) -> None:
    """What was published comes from the ledger read first: what a later one adds may still be on its way.

    A boot that only the later reading knows, and no spool, is one of an unreachable camera.
    """
    first = early or (late if not spooled else None)
    if first is not None:
        boot.published.add(first.first, first.next - 1)
    for row in (early, late):
        if row is not None:
            boot.started_ms = row.started_ms
            boot.shed.update(shed_ranges(row.shed))
            boot.frames_skipped = max(boot.frames_skipped, row.frames_skipped)
            boot.frames_resent = max(boot.frames_resent, row.frames_resent)
            boot.bytes_resent = max(boot.bytes_resent, row.bytes_resent)


def _take_spool(boot: BootAudit, spool: SpoolBoot) -> None:
    boot.started_ms = boot.started_ms or spool.started_ms
    boot.published.add(spool.first, spool.next - 1)
    boot.shed.update(spool.shed)
    boot.pending.update(spool.waiting)
    boot.frames_skipped = max(boot.frames_skipped, spool.frames_skipped)
    boot.frames_resent = max(boot.frames_resent, spool.frames_resent)
    boot.bytes_resent = max(boot.bytes_resent, spool.bytes_resent)


def _settle(boot: BootAudit, confirmed_to: int | None) -> None:
    """Give each frame one fate: recorded before dead-lettered before shed before pending; the rest is lost.

    `confirmed_to` is for a boot whose spool cannot be read: what is missing from there on may wait in it.
    """
    # What a verified record names was published, whether its ledger has come yet or not.
    for seen in (boot.recorded, boot.dead_lettered, boot.pending):
        boot.published.update(seen)
    boot.dead_lettered = boot.dead_lettered.minus(boot.recorded)
    boot.shed = boot.shed.minus(boot.recorded).minus(boot.dead_lettered)
    boot.pending = boot.pending.minus(boot.recorded).minus(boot.dead_lettered).minus(boot.shed)
    left = boot.published
    for fate in (boot.recorded, boot.dead_lettered, boot.shed, boot.pending):
        left = left.minus(fate)
    if confirmed_to is not None:
        out_of_sight = RangeSet((max(first, confirmed_to), last) for first, last in left.ranges())
        boot.pending.update(out_of_sight)
        left = left.minus(out_of_sight)
    boot.lost = left


def _keys(layout: Layout) -> KeyRing:
    """Of every generation: what was signed under a key that was revoked since was taken all the same."""
    return KeyRing(layout.roots(Role.AUDITOR) or role_roots(Environment(), Role.AUDITOR))
