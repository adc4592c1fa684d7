"""The durable ledger of one boot: what it has published, what the full spool shed, where its source stands."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Final
from zlib import crc32

from schemas.clock import unix_ms
from schemas.identity import CameraId
from schemas.limits import MAX_SHED_RANGES
from schemas.pointillist_pb2 import Ledger, Range
from schemas.ranges import RangeSet
from schemas.runtime.atomic_file import replacing

_LEDGER: Final = ".ledger"
_COPY: Final = ".copy"
_SUFFIX: Final = f"{_LEDGER}.json"
_SUFFIXES: Final = (_SUFFIX, f"{_LEDGER}{_COPY}")
_END_BYTES: Final = len("\n01234567\n")
_ROOM: Final = 512
"""Bytes of a ledger's file, or a multiple: a sector, which no power cut leaves half written."""


@dataclass(slots=True, eq=False)
class BootLedger:
    """One process start of one camera. Frames 0 .. `next` − 1 were published by it.

    `ordinal` counts the boots of the spool, and `position` is where the source continues. Frames below `confirmed_to`
    are held by Kafka or shed. `confirmed_revision` is the highest revision that the server has confirmed. `reported`
    holds the counts of the latest revision. `clock_ms` is the spool time at which it was written.

    The file has the same fields: a field that is renamed makes the files of earlier releases unreadable.
    """

    camera_id: CameraId
    boot_id: int
    ordinal: int
    started_ms: int
    next: int = 0
    position: int = 0
    shed: RangeSet = field(default_factory=RangeSet)
    revision: int = 1
    confirmed_revision: int = 0
    confirmed_to: int = 0
    closed: bool = False
    frames_skipped: int = 0
    frames_resent: int = 0
    bytes_resent: int = 0
    reported: tuple[int, ...] = (0, 0, 0, 0, 0)
    clock_ms: int = 0

    def counts(self, confirmed_to: int) -> tuple[int, ...]:
        """Return the fields that change without a new revision: `next`, frames skipped, resent and shed, and the
        confirmed ranges."""
        return self.next, self.frames_skipped, self.frames_resent, confirmed_to, len(self.shed)

    def join_shed(self) -> None:
        """Keep the shed ranges within what the server accepts, by joining the closest ones. Only ranges below
        `confirmed_to` are joined: the frames between them are confirmed, and the audit still counts them as recorded.
        """
        self.shed.join_nearest(MAX_SHED_RANGES, self.confirmed_to)

    def to_message(self) -> Ledger:
        """Return the unsigned ledger for the audit. If there are more shed ranges than the server accepts, it contains
        the first ones. The others lie after frames that still wait, and are joined when these are confirmed.
        """
        return Ledger(
            boot_id=self.boot_id,
            revision=self.revision,
            started_ms=self.started_ms,
            first=0,
            next=self.next,
            shed=[Range(first=first, last=last) for first, last in islice(self.shed.ranges(), MAX_SHED_RANGES)],
            closed=self.closed,
            frames_skipped=self.frames_skipped,
            frames_resent=self.frames_resent,
            bytes_resent=self.bytes_resent,
            written_ms=unix_ms(),
            confirmed_to=self.confirmed_to,
        )


def ledger_path(folder: Path, boot_id: int) -> Path:
    """Return the path of a boot's ledger."""
    return folder / f"{boot_id:016x}{_SUFFIX}"


def ledger_paths(folder: Path) -> set[Path]:
    """Return the paths of the ledgers below a folder, including those of which only the copy is left."""
    return ledgers_among(folder.rglob(f"*{_LEDGER}.*"))


def ledgers_among(files: Iterable[Path]) -> set[Path]:
    """Return the paths of the ledgers among these files, including those of which only the copy is left."""
    return {path.with_suffix(".json") for path in files if path.name.endswith(_SUFFIXES)}


def ledger_boot(path: Path) -> int:
    """Return the boot id in a ledger's file name, 0 for any other file."""
    try:
        return int(path.name.removesuffix(_SUFFIX), 16)
    except ValueError:
        return 0


def write_ledger(folder: Path, ledger: BootLedger) -> None:
    """Save the ledger, and then its copy, so that one of the files is always intact. The second line has the checksum
    of the first. The first line is padded with blanks, so that the file is overwritten in place, even on a full disk.
    Replacing a file makes ext4 write its content to the disk at once (`auto_da_alloc`). That takes milliseconds, and a
    fleet has thousands of ledgers.
    """
    values = {each.name: getattr(ledger, each.name) for each in fields(ledger)}
    text = json.dumps(values | {"shed": list(ledger.shed.ranges())}).encode()
    path = ledger_path(folder, ledger.boot_id)
    _write(path, text)
    with contextlib.suppress(OSError):  # an older copy is better than none
        _write(path.with_suffix(_COPY), text)


def _write(path: Path, text: bytes) -> None:
    """Overwrite the file with the text and its checksum in one system call, or replace the file if it is too small."""
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_WRONLY)
        try:
            room = os.fstat(fd).st_size
            if len(text) + _END_BYTES <= room:
                if os.pwrite(fd, _filled(text, room), 0) != room:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return
        finally:
            os.close(fd)
    with replacing(path) as fresh:
        fresh.write_bytes(_filled(text, _ROOM * -(-(len(text) + _END_BYTES) // _ROOM)))


def _filled(text: bytes, room: int) -> bytes:
    """Return `room` bytes: the text, padded with blanks, and its checksum."""
    text = text.ljust(room - _END_BYTES)
    return b"%s\n%08x\n" % (text, crc32(text))


def remove_ledger(folder: Path, boot_id: int) -> None:
    """Remove the ledger of a boot: its copy first, which alone would count as the ledger."""
    path = ledger_path(folder, boot_id)
    path.with_suffix(_COPY).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def read_ledgers(path: Path) -> Iterator[BootLedger | None]:
    """Yield the ledger at `path` and then its copy: None for a file that is damaged or that the disk cannot read,
    nothing for a missing one."""
    for each in (path, path.with_suffix(_COPY)):
        try:
            data = each.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            yield None
        else:
            yield _parse(data, ledger_boot(path))


def read_ledger(path: Path) -> BootLedger | None:
    """Return the ledger at `path`, or its copy if that is damaged; None if both are damaged or missing."""
    return next((ledger for ledger in read_ledgers(path) if ledger is not None), None)


def _parse(data: bytes, boot_id: int) -> BootLedger | None:
    text, _, checksum = data.removesuffix(b"\n").partition(b"\n")
    try:
        if checksum != f"{crc32(text):08x}".encode():
            return None
        values = json.loads(text)
        values["shed"] = RangeSet((int(first), int(last)) for first, last in values["shed"])
        values["reported"] = tuple(int(count) for count in values.get("reported", ()))
        ledger = BootLedger(**values)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return ledger if ledger.boot_id == boot_id else None
