"""Segment files: append-only records of frames, each with its own checksum.

A record is a header of 52 bytes (magic, kind, CRC-32, payload length, raw byte count, boot id, sequence number, source
position, capture time; little endian) and the payload. The checksum covers all that follows it, so that a record torn
by a killed process or a lost page is recognised, and everything from it on is not part of the segment.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

_MAGIC: Final = 0x4C50
_FRAME: Final = 1
_HEAD: Final = struct.Struct("<HHI")
_BODY: Final = struct.Struct("<IIQQQQ")
HEADER_BYTES: Final = _HEAD.size + _BODY.size
SUFFIX: Final = ".segment"


class Record(NamedTuple):
    """One frame of a segment; `offset` and `length` say where its payload lies in the file."""

    boot_id: int
    seq: int
    position: int
    captured_ms: int
    raw_bytes: int
    offset: int
    length: int


@dataclass(slots=True, eq=False)
class Segment:
    """One file of the spool: the frames `first` .. `next` - 1 of a boot, of which `waiting` are not confirmed."""

    path: Path
    boot_id: int
    first: int
    next: int
    size: int = 0
    waiting: int = 0
    oldest_ms: int = 0
    newest_ms: int = 0


def segment_path(folder: Path, boot_id: int, first: int) -> Path:
    """Where the segment of a boot lies that begins with the frame `first`."""
    return folder / f"{boot_id:016x}-{first:016x}{SUFFIX}"


def segment_name(path: Path) -> tuple[int, int] | None:
    """The boot id and first sequence number that a file name tells, None for a file that is no segment."""
    boot, _, first = path.name.removesuffix(SUFFIX).partition("-")
    try:
        return (int(boot, 16), int(first, 16)) if path.name.endswith(SUFFIX) else None
    except ValueError:
        return None


def write_record(
    fd: int, boot_id: int, seq: int, position: int, captured_ms: int, raw_bytes: int, payload: bytes
) -> int:
    """Append one record with a single system call; returns the bytes written, fewer than asked on a full disk."""
    body = _BODY.pack(len(payload), raw_bytes, boot_id, seq, position, captured_ms)
    return os.writev(fd, (_HEAD.pack(_MAGIC, _FRAME, crc32(payload, crc32(body))), body, payload))


def read_records(data: bytes) -> Iterator[Record]:
    """The whole records at the beginning of a segment's bytes; ends before the first that is torn or damaged."""
    offset = 0
    view = memoryview(data)
    while offset + HEADER_BYTES <= len(data):
        magic, kind, checksum = _HEAD.unpack_from(data, offset)
        body_at = offset + _HEAD.size
        length, raw_bytes, boot_id, seq, position, captured_ms = _BODY.unpack_from(data, body_at)
        end = offset + HEADER_BYTES + length
        if magic != _MAGIC or kind != _FRAME or end > len(data) or crc32(view[body_at:end]) != checksum:
            return
        yield Record(boot_id, seq, position, captured_ms, raw_bytes, offset + HEADER_BYTES, length)
        offset = end


def read_segment(path: Path) -> list[Record]:
    """The whole records of a segment file that belong to it: its boot, and sequence numbers without a gap."""
    name = segment_name(path)
    if name is None:
        return []
    boot_id, seq = name
    records: list[Record] = []
    for record in read_records(path.read_bytes()):
        if record.boot_id != boot_id or record.seq != seq:
            break
        records.append(record)
        seq += 1
    return records
