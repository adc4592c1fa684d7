"""The ledgers of a database that carry their camera's valid signature."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from consumers.records.rows import LedgerRow
from schemas.errors import WireError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.ledger import open_ledger
from schemas.pointillist_pb2 import Ledger
from schemas.ranges import RangeSet


class SignedLedger(NamedTuple):
    """The claims of one ledger, without the message that holds them."""

    revision: int
    started_ms: int
    first: int
    next: int
    confirmed_to: int
    frames_skipped: int
    frames_resent: int
    bytes_resent: int
    shed: RangeSet

    @classmethod
    def of(cls, ledger: Ledger) -> Self:
        """Return the claims of a checked ledger."""
        return cls(
            ledger.revision,
            ledger.started_ms,
            ledger.first,
            ledger.next,
            min(ledger.confirmed_to, ledger.next),
            ledger.frames_skipped,
            ledger.frames_resent,
            ledger.bytes_resent,
            RangeSet((shed.first, shed.last) for shed in ledger.shed),
        )


@dataclass
class SignedLedgers:
    """Signed ledgers by camera and boot, and the number of unsigned ones."""

    rows: dict[tuple[CameraId, int], SignedLedger] = field(default_factory=dict)
    refused: list[tuple[CameraId, int]] = field(default_factory=list)

    @classmethod
    def read(cls, rows: Iterable[LedgerRow], keys: KeyRing) -> SignedLedgers:
        """Read the signed ledgers. Accept any key generation that `keys` accept, and trust no other column."""
        found = cls()
        for row in rows:
            boot = (CameraId(row.camera), row.boot)
            try:
                ledger = open_ledger(boot[0], row.message, keys)
            except WireError:
                found.refused.append(boot)
                continue
            if ledger.boot_id == row.boot:
                found.rows[boot] = SignedLedger.of(ledger)
            else:
                found.refused.append(boot)
        return found
