"""The recorder's database as far as the audit can read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from consumers.conservation.law import BootAudit
from consumers.conservation.ledgers import SignedLedgers
from consumers.database.damage import UNREADABLE, damaged_files, reason, set_aside_ms
from consumers.database.engine import database_url
from consumers.database.queries import Records
from schemas.errors import BrokerError
from schemas.keys import KeyRing
from schemas.ranges import RangeSet

T = TypeVar("T")

Boot = tuple[str, int]
"""Camera and boot."""


class AuditedDatabase:
    """Asks the database, and remembers what it does not give. Raises StateError for one of another version.

    A file can be damaged in parts: all else of it is read. Of a server that does not answer nothing can be read:
    BrokerError.
    """

    def __init__(self, url: str, records: Records, keys: KeyRing) -> None:
        parsed = database_url(url)
        self._is_file = parsed.get_backend_name() == "sqlite"
        file = Path(parsed.database or "")
        self._name = file.name if self._is_file else "the database"
        self._records = records
        self._keys = keys
        aside = damaged_files(file) if self._is_file else []
        self.complete_from_ms = max((set_aside_ms(each) for each in aside), default=0)
        """Of boots that started before it, only a database that was set aside may know a frame."""
        self._aside = [
            f"{each.name}: a damaged database that was set aside; what only it holds is not counted" for each in aside
        ]
        self._failed: dict[str, dict[str, None]] = {}
        self.ask("its version", records.check_version)
        if self._failed and not self._is_file:
            raise BrokerError(f"expected the recorder's database to answer: {next(iter(self._failed))}")

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

    def fates(self) -> Fates:
        """Read what is recorded and dead-lettered now."""
        return Fates(self, self._records)


class Fates:
    """The frames that are recorded and dead-lettered, of all boots at once; one by one where that fails."""

    def __init__(self, database: AuditedDatabase, records: Records) -> None:
        self._database = database
        self._records = records
        self._all: tuple[dict[Boot, RangeSet], dict[Boot, RangeSet]] | None
        try:
            self._all = records.recorded_by_boot(), records.dead_lettered_by_boot()
        except (*UNREADABLE, ValueError, TypeError):
            self._all = None

    def take(self, boot: BootAudit) -> bool:
        """Enter those of one boot; false where some of them could not be read."""
        place = boot.camera_id, boot.boot_id
        recorded: RangeSet | None
        dead_lettered: RangeSet | None
        if self._all is not None:
            recorded, dead_lettered = (found.get(place, RangeSet()) for found in self._all)
        else:
            ask = self._database.ask
            recorded = ask("recorded frames", lambda: self._records.recorded(*place))
            dead_lettered = ask("dead letters", lambda: self._records.dead_lettered(*place))
        boot.recorded = recorded or RangeSet()
        boot.dead_lettered = dead_lettered or RangeSet()
        known_from_ms = self._database.complete_from_ms
        complete = not known_from_ms or boot.started_ms > known_from_ms
        return complete and recorded is not None and dead_lettered is not None
