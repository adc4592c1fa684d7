"""The audit of a running system, updated incrementally: each refresh reads only the changes.

It keeps sets as ranges for each boot, and sums over all boots. If a boot changes, its old part is subtracted from the
sums and its new part is added. A frame without a fate is pending until all that Kafka held of its boot has been
recorded. After that it is lost, see `consumers.conservation.rounds`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from threading import Lock
from typing import Final

from consumers.conservation.balance import BootAudit, Counts, LostFrames
from consumers.conservation.changes import changes
from consumers.conservation.ledgers import SignedLedger, SignedLedgers
from consumers.conservation.rounds import LogOffsets, Rounds
from consumers.database.damage import last_set_aside_ms
from consumers.database.engine import open_engine, settled_at_ms
from consumers.database.queries import Records
from consumers.records.batch import BootKey
from consumers.records.rows import LedgerRow, SummedRow
from schemas.clock import unix_ms
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.ranges import RangeSet

MOST_LOST: Final = 1_000
"""Maximum number of lost ranges in the document."""


@dataclass(slots=True)
class _Boot:
    recorded: RangeSet = field(default_factory=RangeSet)
    dead_lettered: RangeSet = field(default_factory=RangeSet)
    ledger: SignedLedger | None = None
    duplicates: int = 0
    overdue: RangeSet = field(default_factory=RangeSet)
    """Frames that still had no fate when Kafka held no more of them."""
    counts: Counter[str] = field(default_factory=Counter)
    """This boot's part of the sums."""


@dataclass(frozen=True)
class LiveFindings:
    """Results of the live audit besides the counts."""

    covers_from_ms: int | None
    """Start of the oldest boot in the database, Unix time in milliseconds; null before the first boot."""
    ledgers_refused: int
    """Ledgers without a valid camera signature. Their claims are not counted."""
    lost: list[LostFrames]
    """The lost frames, at most 1,000 ranges."""
    boots: int
    """Number of camera boots that were counted."""
    as_of_ms: int
    """Time at which the database was read, Unix time in milliseconds."""
    lost_known_to_ms: int
    """Unix time in milliseconds, 0 at first.

    Frames confirmed before it and found nowhere count as lost, later ones as pending.
    """


class LiveAudit:
    """The sums over all boots of a database, kept up to date by `refresh`. For one thread at a time."""

    def __init__(self, url: str, keys: KeyRing) -> None:
        """Open the database at `url` at the first `refresh`. `keys` must accept every generation."""
        self._url = url
        self._keys = keys
        self._records: Records | None = None
        self._boots: dict[BootKey, _Boot] = {}
        self._sums: Counter[str] = Counter()
        self._lost: dict[BootKey, RangeSet] = {}
        self._open: set[BootKey] = set()
        """Boots with a frame that has no fate."""
        self._refused: set[BootKey] = set()
        self._summed: dict[str, SummedRow] = {}
        self._foreign = 0
        self._read_to_ms = 0
        self._set_aside_ms = 0
        """Unix time at which a database was last set aside, 0 for never or if its file was removed."""
        self._from_ms: int | None = None
        self._rounds = Rounds()
        self._turn = Lock()
        self.document: dict[str, object] | None = None
        """The last result of `refresh`, by the names of `pointillist audit`."""

    def refresh(self, logs: LogOffsets) -> dict[str, object]:
        """Read the changes and return the document. `logs` must have been read from Kafka before the call."""
        with self._turn:
            now_ms = unix_ms()
            if not self._read_to_ms:
                self._begin()  # again if the first reading failed: it has missed the frames recorded since
            assert self._records is not None
            # The overlap exceeds the recorders' clock differences and the longest transaction.
            settled_ms = settled_at_ms(self._records.engine, self._read_to_ms)
            found = changes(self._records.engine, max(0, settled_ms), self._summed)
            self._take_ledgers(found.ledgers)
            touched: set[BootKey] = {(row.camera, row.boot) for row in found.ledgers} & self._boots.keys()
            for numbers, of in ((found.recorded, "recorded"), (found.dead_lettered, "dead_lettered")):
                for place, seqs in numbers.items():
                    boot = self._boots.setdefault(place, _Boot())
                    known: RangeSet = getattr(boot, of)
                    for seq in sorted(seqs):
                        known.add(seq)
                    touched.add(place)
            for place, (frames, duplicates) in found.counted.items():
                boot = self._boots.setdefault(place, _Boot())
                boot.duplicates = duplicates
                if self._read_to_ms and frames != len(boot.recorded):
                    # Clocks that differ by more than the overlap.
                    boot.recorded = self._records.recorded(*place)
            before_ms, self._set_aside_ms = self._set_aside_ms, last_set_aside_ms(self._url)
            self._foreign = found.foreign
            self._summed = found.summed
            touched |= self._drop_ledgers(found.kept)
            if not self._read_to_ms or self._set_aside_ms != before_ms:
                touched |= self._boots.keys()
            for place in touched & self._boots.keys():
                self._settle(place)
            for place, overdue in self._rounds.advance(found.offsets, logs, self._unaccounted, now_ms):
                if place in self._boots:  # its ledger may have been summed during the round
                    if _both(self._audit(place).pending, overdue):
                        # Frames may have been committed after the overlap; letters recorded and purged within it.
                        self._boots[place].recorded = self._records.recorded(*place)
                        self._boots[place].dead_lettered = self._records.dead_lettered(*place)
                    self._boots[place].overdue.update(overdue)
                    self._settle(place)
            self._read_to_ms = now_ms
            self.document = self._describe(now_ms)
            return self.document

    def close(self) -> None:
        """Close the database."""
        if self._records is not None:
            self._records.close()

    def _begin(self) -> None:
        """Read all frames recorded earlier in one walk over an index."""
        if self._records is None:
            self._records = Records(open_engine(self._url, writes=False))
        records = self._records
        self._boots = {place: _Boot(recorded) for place, recorded in records.recorded_by_boot().items()}
        for place, dead_lettered in records.dead_lettered_by_boot().items():
            self._boots.setdefault(place, _Boot()).dead_lettered = dead_lettered
        for place, duplicates in records.duplicates_by_boot().items():
            self._boots.setdefault(place, _Boot()).duplicates = duplicates

    def _take_ledgers(self, rows: list[LedgerRow]) -> None:
        signed = SignedLedgers.read([row for row in rows if self._is_new(row)], self._keys)
        self._refused.update(signed.refused)
        for place, row in signed.rows.items():
            self._refused.discard(place)
            self._boots.setdefault(place, _Boot()).ledger = row
            if row.started_ms and (self._from_ms is None or row.started_ms < self._from_ms):
                self._from_ms = row.started_ms

    def _drop_ledgers(self, kept: Mapping[str, set[int]]) -> set[BootKey]:
        """Drop the ledgers that have been summed. Return those of their boots that still have records."""
        gone = {
            place
            for place, boot in self._boots.items()
            if boot.ledger is not None and place[0] in kept and place[1] not in kept[place[0]]
        }
        for place in gone:
            self._boots[place].ledger = None
            self._settle(place)
            if not (self._boots[place].recorded or self._boots[place].dead_lettered):
                del self._boots[place]
        self._refused = {(c, boot) for c, boot in self._refused if c not in kept or boot in kept[c]}
        return gone & self._boots.keys()

    def _is_new(self, row: LedgerRow) -> bool:
        known = self._boots.get((row.camera, row.boot))
        return known is None or known.ledger is None or known.ledger.revision < row.revision

    def _audit(self, place: BootKey) -> BootAudit:
        """Apply the law to one boot. Frames without a fate are pending unless they are overdue."""
        known = self._boots[place]
        boot = BootAudit(CameraId(place[0]), place[1], recorded=known.recorded, dead_lettered=known.dead_lettered)
        boot.take_ledger(known.ledger, None, spooled=False)
        boot.duplicates = known.duplicates
        boot.settle(0)
        boot.lost = _both(boot.pending, known.overdue)
        boot.pending = boot.pending.minus(boot.lost)
        if boot.may_be_in(self._set_aside_ms):
            boot.lost, boot.unread = RangeSet(), boot.lost
        return boot

    def _settle(self, place: BootKey) -> None:
        boot = self._audit(place)
        known = self._boots[place]
        self._sums.subtract(known.counts)
        known.counts = Counter(Counts.of([boot], 0).as_dict())
        self._sums.update(known.counts)
        self._open.discard(place)
        self._lost.pop(place, None)
        if boot.pending:
            self._open.add(place)
        if boot.lost:
            self._lost[place] = boot.lost

    def _unaccounted(self) -> dict[BootKey, RangeSet]:
        """Return the frames that Kafka has confirmed, by the cameras' ledgers, and that have no fate."""
        found = {}
        for place in self._open:
            ledger = self._boots[place].ledger
            if ledger is not None:
                waiting = self._audit(place).pending
                waiting.remove(ledger.confirmed_to, max(ledger.confirmed_to, ledger.next))
                if waiting:
                    found[place] = waiting
        return found

    def _describe(self, now_ms: int) -> dict[str, object]:
        sums = {
            name: self._sums[name] + count for name, count in Counts.of([], 0, self._summed.values()).as_dict().items()
        }
        lost = [
            LostFrames(camera_id=camera, boot_id=f"{boot:016x}", ranges=list(ranges.ranges())[:MOST_LOST])
            for (camera, boot), ranges in sorted(self._lost.items())[:MOST_LOST]
        ]
        found = LiveFindings(
            covers_from_ms=self._from_ms,
            ledgers_refused=len(self._refused),
            lost=lost,
            boots=len(self._boots),
            as_of_ms=now_ms,
            lost_known_to_ms=self._rounds.known_to_ms,
        )
        return {**sums, "frames_foreign": self._foreign, **asdict(found)}


def _both(one: RangeSet, other: RangeSet) -> RangeSet:
    return one.minus(one.minus(other)) if other else RangeSet()
