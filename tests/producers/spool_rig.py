"""Spools for tests: numbered payloads, a clock that a test moves, kills, failing system calls and damaged bytes."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from producers.spool import Spool, SpoolBoot, SpoolLimits, scan_spool
from producers.spool.ledger import BootLedger
from schemas.identity import CameraId
from schemas.ranges import RangeSet

CAMERA = CameraId("lab/cam")
PAYLOAD_BYTES = 1000
FRAMES = 130
ROOM = SpoolLimits(max_bytes=2**20)
"""Small enough that segments are 64 KiB: about sixty frames of the usual size each."""


def payload_of(seq: int, length: int = PAYLOAD_BYTES) -> bytes:
    return random.Random(seq).randbytes(length)


def fill(spool: Spool, count: int = FRAMES, length: int = PAYLOAD_BYTES) -> int:
    """Append frames and return the boot id."""
    for _ in range(count):
        seq = spool.current.next
        spool.append(payload_of(seq, length), spool.position, 1000 + seq, 1)
    return spool.current.boot_id


def kill(spool: Spool) -> None:
    """Leave the spool as kill -9 does: nothing written at the end, the lock gone with the process."""
    spool._lock.release()


def refuse(problem: int) -> Callable[..., NoReturn]:
    """Return a function that raises this system error."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(problem, os.strerror(problem))

    return fail


def segments_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.segment"))


def first_of(path: Path) -> int:
    """Return the first frame of a segment, by its name."""
    return int(path.name[17:33], 16)


def ledger_copies(folder: Path, boot_id: int) -> list[Path]:
    """Return the copy of a boot's ledger and the ledger."""
    return sorted(folder.glob(f"{boot_id:016x}.ledger.*"))


def flip(path: Path, at: int, mask: int = 0x10) -> None:
    """Change one byte of a file in place."""
    with path.open("r+b") as file:
        file.seek(at)
        [byte] = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ mask]))


def flip_payload(path: Path, payload: bytes) -> None:
    """Change the first byte of a payload in a segment."""
    flip(path, path.read_bytes().index(payload))


def scanned(folder: Path, boot_id: int) -> SpoolBoot:
    [boot] = [boot for boot in scan_spool(folder) if boot.boot_id == boot_id]
    return boot


def ledger_of(spool: Spool, boot_id: int) -> BootLedger:
    [ledger] = [ledger for ledger in spool.ledgers.unsettled() if ledger.boot_id == boot_id]
    return ledger


def readable(spool: Spool, boot_id: int) -> RangeSet:
    """Return the waiting frames of a spool, after checking that each is read back as it was written."""
    found = RangeSet()
    for seq in range(FRAMES + 20):
        frame = spool.get((boot_id, seq))
        if frame is not None:
            assert spool.read(frame) == payload_of(seq)
            found.add(seq)
    return found


def assert_only(folder: Path, boot_id: int, missing: set[int], published: int = FRAMES) -> None:
    """Assert that only these frames of a boot are missing, and are shed: before its next start and after it."""
    for_audit = scanned(folder, boot_id)
    assert (for_audit.next, set(for_audit.shed)) == (published, missing)
    assert for_audit.waiting == RangeSet([(0, published - 1)]).minus(RangeSet.of(missing))

    spool = Spool(folder, CAMERA, ROOM)
    assert readable(spool, boot_id) == for_audit.waiting
    ledger = ledger_of(spool, boot_id)
    assert (ledger.next, set(ledger.shed)) == (published, missing)
    assert scanned(folder, boot_id).shed == for_audit.shed
    assert spool.bytes == sum(path.stat().st_size for path in segments_of(folder))
    kill(spool)
    again = Spool(folder, CAMERA, ROOM)
    assert readable(again, boot_id) == for_audit.waiting  # a later start finds no further damage
    again.close()
    assert scanned(folder, boot_id).shed == for_audit.shed
