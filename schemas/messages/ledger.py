"""The checks of a camera's ledger: the bridge and the recorder accept the same ones."""

from __future__ import annotations

from typing import Final

from schemas.errors import MalformedError
from schemas.identity import BOOT_ID_LIMIT, CameraId
from schemas.keys.keys import KeyRing
from schemas.limits import MAX_BOOT_FRAMES, MAX_LEDGER_BYTES, MAX_SHED_RANGES
from schemas.messages.frame import open_message
from schemas.pointillist_pb2 import Ledger

_COUNT_LIMIT: Final = 2**63


def open_ledger(camera_id: CameraId, payload: bytes, keys: KeyRing) -> Ledger:
    """Parse, verify and check a camera's ledger; `WireError` for one that no spool writes."""
    if len(payload) > MAX_LEDGER_BYTES:
        raise MalformedError(f"ledger: expected at most {MAX_LEDGER_BYTES} bytes, got {len(payload)}")
    ledger = open_message(Ledger, camera_id, payload, keys)
    check_ledger(ledger)
    return ledger


def check_ledger(ledger: Ledger) -> None:
    """Raise `MalformedError` for a ledger that no spool writes."""
    if not (0 < ledger.boot_id < BOOT_ID_LIMIT and ledger.revision):
        raise MalformedError(
            f"ledger: expected 0 < boot_id < 2**63 and a revision from 1, got {ledger.boot_id}, {ledger.revision}"
        )
    if ledger.next > MAX_BOOT_FRAMES:
        raise MalformedError(f"ledger: expected at most {MAX_BOOT_FRAMES} frames of one boot, got next = {ledger.next}")
    counts = (
        ledger.revision,
        ledger.frames_skipped,
        ledger.frames_resent,
        ledger.bytes_resent,
        ledger.started_ms,
        ledger.written_ms,
    )
    if max(counts) >= _COUNT_LIMIT:
        raise MalformedError(f"ledger: expected counts below 2**63, got {counts}")
    if len(ledger.shed) > MAX_SHED_RANGES:
        raise MalformedError(f"ledger: expected at most {MAX_SHED_RANGES} shed ranges, got {len(ledger.shed)}")
    inside = all(ledger.first <= shed.first <= shed.last < ledger.next for shed in ledger.shed)
    if ledger.first > ledger.next or not inside:
        raise MalformedError(f"ledger: expected shed ranges within the published {ledger.first} to {ledger.next} - 1")
