"""The ledgers of a database that their cameras have signed: what else is there was written by somebody else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from consumers.reading.batch import ledger_row
from consumers.reading.rows import LedgerRow
from schemas.errors import WireError
from schemas.frame import open_message
from schemas.identity import CameraId
from schemas.keys import KeyRing
from schemas.pointillist_pb2 import Ledger


@dataclass
class SignedLedgers:
    """Ledgers by camera and boot, and those that nobody has signed."""

    rows: dict[tuple[CameraId, int], LedgerRow] = field(default_factory=dict)
    refused: list[tuple[CameraId, int]] = field(default_factory=list)

    @classmethod
    def read(cls, rows: Iterable[LedgerRow], keys: KeyRing) -> SignedLedgers:
        """What the cameras signed, under any generation that `keys` accept; the other columns are not believed."""
        found = cls()
        for row in rows:
            boot = (CameraId(row.camera), row.boot)
            try:
                ledger = open_message(Ledger, boot[0], row.message, keys)
            except WireError:
                found.refused.append(boot)
                continue
            if ledger.boot_id == row.boot:
                found.rows[boot] = ledger_row(boot, ledger, row.message)
            else:
                found.refused.append(boot)
        return found
