"""The recorder's database as far as the audit can read it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from consumers.conservation.balance import BootAudit
from consumers.conservation.ledgers import SignedLedgers
from consumers.database.damage import UNREADABLE, damaged_files, last_set_aside_ms, reason
from consumers.database.engine import database_url
from consumers.database.queries import Cameras, Records
from schemas.errors import BrokerError, StateError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.ranges import RangeSet

T = TypeVar("T")

Boot = tuple[str, int]
"""Camera and boot."""


class AuditedDatabase:
    """A reader of the database that records what cannot be read. Raises StateError for a database of another version.

    A file may be damaged in parts: the rest of it is read. Raises BrokerError when a database server does not answer,
    and StateError when its database has no tables of a recorder.
    """

    def __init__(self, url: str, records: Records, keys: KeyRing) -> None:
        parsed = database_url(url)
        self._is_file = parsed.get_backend_name() == "sqlite"
        file = Path(parsed.database or "")
        self._name = file.name if self._is_file else "the database"
        self._records = records
        self._keys = keys
        aside = damaged_files(file) if self._is_file else []
        self.set_aside_ms = last_set_aside_ms(url)
        """Unix time in milliseconds at which a database was last set aside, 0 for never."""
        self._aside = [
            f"{each.name}: a damaged database that was set aside; its unique records are not counted" for each in aside
        ]
        self._failed: dict[str, dict[str, None]] = {}
        version = self.ask("its version", records.check_version)
        if self._failed and not self._is_file:
            raise BrokerError(
                f"the recorder's database: expected a response, got {next(iter(self._failed))}. Start the "
                "database, or correct its address."
            )
        if version is None and not self._is_file:
            raise StateError(
                "the recorder's database: expected the recorder's tables, got none. Correct the name of the database, "
                "or start the recorder, which creates them."
            )

    @property
    def unread(self) -> list[str]:
        """Return one line for each reason, with everything that it made unreadable."""
        failed = (f"{self._name}: {why}: cannot read {', '.join(what)}" for why, what in self._failed.items())
        return [*self._aside, *failed]

    def ask(self, what: str, query: Callable[[], T]) -> T | None:
        """Return the result of `query`; None when the database does not return it."""
        try:
            return query()
        except (*UNREADABLE, ValueError, TypeError) as error:
            self._failed.setdefault(reason(error), {})[what] = None
            return None

    def cameras(self) -> list[CameraId]:
        """Return every camera with a frame, a verified dead letter or a ledger."""
        return [CameraId(camera) for camera in sorted(self.ask("the cameras", self._records.cameras) or ())]

    def ledgers(self, of: Cameras) -> SignedLedgers:
        """Return the highest signed revision of each boot's ledger, for the cameras `of`."""
        try:
            return SignedLedgers.read(self._records.ledgers(of), self._keys)
        except (*UNREADABLE, ValueError, TypeError):
            return self._ledgers_one_by_one(of)

    def _ledgers_one_by_one(self, cameras: Cameras) -> SignedLedgers:
        """Read the ledgers camera by camera: unreadable rows of one camera do not affect other cameras."""
        found = SignedLedgers()
        for camera in cameras:
            rows = self._records.ledgers([camera])
            part = self.ask(f"the ledgers of {camera}", partial(SignedLedgers.read, rows, self._keys))
            if part is not None:
                found.rows |= part.rows
                found.refused += part.refused
        return found


class Fates:
    """Enter the recorded and dead-lettered frames of the cameras `of` at once; if that fails, boot by boot."""

    def __init__(self, database: AuditedDatabase, records: Records, of: Cameras) -> None:
        self._database = database
        self._records = records
        self._all: tuple[dict[Boot, RangeSet], dict[Boot, RangeSet]] | None
        try:
            self._all = records.recorded_by_boot(of), records.dead_lettered_by_boot(of)
        except (*UNREADABLE, ValueError, TypeError):
            self._all = None

    def fill(self, boot: BootAudit) -> bool:
        """Enter the frames of one boot; false when some of them could not be read."""
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
        complete = not boot.may_be_in(self._database.set_aside_ms)
        return complete and recorded is not None and dead_lettered is not None
