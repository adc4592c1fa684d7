"""Segment files: append-only records of frames, whose headers and payloads each have their own checksum.

A record is a header of 60 bytes and the payload. The header is magic, kind and the CRC-32 of kind and rest: CRC-32 of
the payload, payload length, raw byte count, boot id, sequence number, source position, capture time (Unix time in
milliseconds) and spool time (`producers.spool.clock`), little endian. An intact header gives the start of the next
record and identifies a damaged payload's frame. After a damaged header, the reader searches for the next intact one. A
segment that was ended has a last record of another kind, without payload, whose sequence number is the one after its
last frame.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from schemas.ranges import RangeSet

_MAGIC: Final = 0x4C50
_FRAME, _END = 1, 2
_HEAD: Final = struct.Struct("<HHI")
_BODY: Final = struct.Struct("<IIIQQQQQ")
HEADER_BYTES: Final = _HEAD.size + _BODY.size
SUFFIX: Final = ".segment"
_BLOCK: Final = 4096
"""Bytes that are read at once where a disk cannot read all of a file."""


class Record(NamedTuple):
    """One frame of a segment: its payload is `length` bytes at `offset` of the file, with the CRC-32 `checksum`."""

    boot_id: int
    seq: int
    position: int
    captured_ms: int
    spooled_ms: int
    offset: int
    length: int
    checksum: int


@dataclass(slots=True, eq=False)
class Segment:
    """One file of the spool: the frames `first` .. `next` - 1 of a boot, of which `waiting` are not confirmed.

    The oldest and the newest of them were appended at these milliseconds of spool time.
    """

    path: Path
    boot_id: int
    first: int
    next: int
    size: int = 0
    waiting: int = 0
    oldest_ms: int = 0
    newest_ms: int = 0


@dataclass(slots=True)
class SegmentContent:
    """The content of a segment file: intact records in order, and the known facts about the others."""

    boot_id: int
    first: int
    next: int
    """The number after the last frame that the file is known to have held."""
    size: int
    end: int = 0
    """The offset of the end of the last known record."""
    records: list[Record] = field(default_factory=list)
    damaged: RangeSet = field(default_factory=RangeSet)
    """Frames from `first` to `next` - 1 that are not whole."""
    unreadable_bytes: int = 0
    """Whether bytes follow `end` that an interrupted write does not explain."""
    open: bool = True
    """Whether frames may be missing at the end, because the writing process did not end the segment."""


def segment_path(folder: Path, boot_id: int, first: int) -> Path:
    """Return the path of the segment of a boot that begins with the frame `first`."""
    return folder / f"{boot_id:016x}-{first:016x}{SUFFIX}"


def segment_name(path: Path) -> tuple[int, int] | None:
    """Return the boot id and first sequence number in a file name, None for any other file."""
    boot, _, first = path.name.removesuffix(SUFFIX).partition("-")
    try:
        return (int(boot, 16), int(first, 16)) if path.name.endswith(SUFFIX) else None
    except ValueError:
        return None


def write_record(
    fd: int, boot_id: int, seq: int, position: int, captured_ms: int, spooled_ms: int, raw_bytes: int, payload: bytes
) -> int:
    """Append one record with a single system call; returns the bytes written, fewer than asked on a full disk."""
    body = _BODY.pack(crc32(payload), len(payload), raw_bytes, boot_id, seq, position, captured_ms, spooled_ms)
    return os.writev(fd, (_HEAD.pack(_MAGIC, _FRAME, crc32(body, _FRAME)), body, payload))


def write_end(fd: int, boot_id: int, following: int) -> int:
    """Append the end record: the frame before `following` was the last. Returns the bytes written."""
    body = _BODY.pack(0, 0, 0, boot_id, following, 0, 0, 0)
    return os.writev(fd, (_HEAD.pack(_MAGIC, _END, crc32(body, _END)), body))


def end_segment(path: Path, content: SegmentContent) -> None:
    """Append the end record to a segment that its process did not end; raises `OSError`."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.ftruncate(fd, content.end)
        content.size = content.end
        content.size += write_end(fd, content.boot_id, content.next)
    finally:
        os.close(fd)


def read_segment(path: Path) -> SegmentContent | None:
    """Return the content of a segment file, None for any other file.

    Only its own records count: those of its boot, in ascending order from the frame in its name. What the disk cannot
    read is damaged.
    """
    name = segment_name(path)
    if name is None:
        return None
    boot_id, first = name
    data = _readable(path)
    content = SegmentContent(boot_id, first, first, len(data))
    offset, torn = 0, False
    while 0 <= offset <= len(data) - HEADER_BYTES:
        kind, record, damaged = _record_at(data, offset, boot_id)
        if record is None or record.seq < content.next:
            offset = data.find(_MAGIC.to_bytes(2, "little"), offset + 1)
            continue
        end = record.offset + record.length
        if end > len(data):
            torn = True  # a process died in the middle of a write: never published, unless the ledger has it
            break
        content.damaged.add(content.next, record.seq - 1)
        if kind == _END:
            content.next, content.end, content.open = record.seq, end, False
            return content
        content.next = record.seq + 1
        if damaged:
            content.damaged.add(record.seq)
        else:
            content.records.append(record)
        offset = content.end = end
    left = len(data) - content.end
    # Not more than a header is a damaged end record, or the beginning of a frame that was never published.
    if left > HEADER_BYTES and not torn:
        content.unreadable_bytes = left
    return content


def _readable(path: Path) -> bytes:
    """Return the bytes of a file, with zeros for the blocks that the disk cannot read."""
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    with path.open("rb", buffering=0) as file:
        data = bytearray(os.fstat(file.fileno()).st_size)
        for start in range(0, len(data), _BLOCK):
            try:
                block = os.pread(file.fileno(), _BLOCK, start)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
            else:
                data[start : start + len(block)] = block
    return bytes(data)


def _record_at(data: bytes, offset: int, boot_id: int) -> tuple[int, Record | None, bool]:
    """Return the kind, the record and whether its payload is damaged; None without an intact header of this boot."""
    magic, kind, checksum = _HEAD.unpack_from(data, offset)
    body_at = offset + _HEAD.size
    if magic != _MAGIC or kind not in (_FRAME, _END):
        return 0, None, False
    at = offset + HEADER_BYTES
    if crc32(data[body_at:at], kind) != checksum:
        return 0, None, False
    payload_sum, length, _, found, seq, position, captured_ms, spooled_ms = _BODY.unpack_from(data, body_at)
    if found != boot_id:
        return 0, None, False
    record = Record(boot_id, seq, position, captured_ms, spooled_ms, at, length, payload_sum)
    return kind, record, crc32(memoryview(data)[at : at + length]) != payload_sum
