"""The ledgers of all boots that a spool still has to account for, in memory and on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from producers.spool.clock import SpoolClock
from producers.spool.ledger import BootLedger, remove_ledger, write_ledger
from producers.spool.writing import unwritable
from schemas.errors import StateError


class Ledgers:
    """This boot's ledger and those of earlier boots that are not settled.

    A boot is settled when it is closed, holds no frame any more, and the server has its last revision.
    """

    def __init__(
        self,
        folder: Path,
        past: Iterable[BootLedger],
        current: BootLedger,
        clock: SpoolClock,
        first_waiting: Callable[[BootLedger], int],
    ) -> None:
        """`first_waiting` gives the first frame of a boot that is neither confirmed nor shed, `next` without one."""
        self.current = current
        self._folder = folder
        self._boots = {boot.boot_id: boot for boot in (*past, current)}
        self._clock = clock
        self._first_waiting = first_waiting

    def of(self, boot_id: int) -> BootLedger:
        """Return the ledger of a boot with unsettled frames."""
        return self._boots[boot_id]

    def unsettled(self) -> Iterator[BootLedger]:
        """Yield the ledgers whose latest revision is not confirmed."""
        return (boot for boot in self._boots.values() if boot.confirmed_revision < boot.revision)

    def outdated(self) -> list[BootLedger]:
        """Return the ledgers whose latest revision is out of date."""
        return [boot for boot in self._boots.values() if boot.reported != boot.counts(self._first_waiting(boot))]

    def revise(self, ledger: BootLedger) -> None:
        """Make a new revision of a ledger, durable on return. After an error there is no new revision."""
        before = ledger.revision, ledger.reported
        ledger.confirmed_to = self._first_waiting(ledger)
        ledger.join_shed()
        ledger.revision += 1
        ledger.reported = ledger.counts(ledger.confirmed_to)
        try:
            self.save(ledger)
        except StateError:
            ledger.revision, ledger.reported = before
            raise

    def close(self) -> None:
        """Close the current boot; its closing revision is durable on return. After an error the boot is not closed."""
        self.current.closed = True
        try:
            self.revise(self.current)
        except StateError:
            self.current.closed = False
            raise

    def confirm(self, boot_id: int, revision: int) -> bool:
        """Record that the server holds this revision, and return whether that is new."""
        ledger = self._boots.get(boot_id)
        if ledger is None or not ledger.confirmed_revision < revision <= ledger.revision:
            return False
        ledger.confirmed_revision = revision
        self.forget_if_settled(boot_id)
        return True

    def count_resent(self, boot_id: int, payload_bytes: int) -> None:
        """Count a resend of a frame in its boot's ledger."""
        ledger = self._boots.get(boot_id)
        if ledger is not None:
            ledger.frames_resent += 1
            ledger.bytes_resent += payload_bytes

    def save(self, ledger: BootLedger) -> None:
        """Save a ledger without a new revision."""
        ledger.confirmed_to = self._first_waiting(ledger)
        ledger.clock_ms = self._clock.now_ms()
        try:
            write_ledger(self._folder, ledger)
        except OSError as error:
            raise unwritable(self._folder, error.errno) from None

    def forget_if_settled(self, boot_id: int) -> None:
        """Drop the record of an earlier boot that is closed, empty and confirmed; this boot's keeps the position."""
        ledger = self._boots.get(boot_id)
        if ledger is None or not ledger.closed:  # the running boot: to look for its first frame takes long
            return
        ledger.confirmed_to = self._first_waiting(ledger)
        if ledger.confirmed_to < ledger.next:
            return
        if ledger.reported != ledger.counts(ledger.confirmed_to):
            with contextlib.suppress(StateError):  # it stays outdated and is saved again later
                self.revise(ledger)
            return
        if ledger.confirmed_revision < ledger.revision or ledger is self.current:
            return
        del self._boots[boot_id]
        with contextlib.suppress(OSError):  # the next start finds it settled
            remove_ledger(self._folder, boot_id)
