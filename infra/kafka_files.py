"""Kafka's own log files, read where they lie: what the audit trusts rather than anyone's counter.

Reading needs no broker, changes nothing, and is safe beside one that writes: a batch that is not whole yet is the end.
A damaged batch is named and passed over. Of several nodes each holds a copy of a partition; the one is read that holds
all that was acknowledged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka.record.default_records import DefaultRecordBatch

_HEADER = struct.calcsize(">qiibIhiqqqhii")
_FRONT = struct.calcsize(">qi")
_MAGIC_AT = struct.calcsize(">qii")
_EPOCH_AT = struct.calcsize(">qi")
_MAGIC = 2
_LARGEST_GAP = 2**40
"""Compaction leaves gaps between offsets; a larger one is no gap."""


@dataclass(frozen=True, slots=True)
class LoggedRecord:
    """One record of one partition."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


Data = Path | Sequence[Path]
"""Kafka's `data` folder, or that of each of its nodes."""


def partitions_of(data: Data, topic: str) -> list[int]:
    """The partitions of `topic` that have a folder in Kafka's `data`."""
    found = set()
    for node in _nodes(data):
        for folder in node.glob(f"{topic}-*"):
            suffix = folder.name[len(topic) + 1 :]
            if suffix.isdigit():
                found.add(int(suffix))
    return sorted(found)


def read_topic(data: Data, topic: str, unread: list[str] | None = None) -> Iterator[LoggedRecord]:
    """Every record of `topic` that Kafka still holds in its `data`, partition by partition, by offset.

    What is damaged is passed over, one line in `unread` for each place.
    """
    unread = [] if unread is None else unread
    for partition in partitions_of(data, topic):
        name = f"{topic}-{partition}"
        copies = [folder for node in _nodes(data) if (folder := node / name).is_dir()]
        if copies:  # Kafka may have deleted it meanwhile
            yield from read_partition(fullest(copies), partition, unread)


def _nodes(data: Data) -> Sequence[Path]:
    return [data] if isinstance(data, Path) else data


def fullest(copies: Sequence[Path]) -> Path:
    """Of the `copies` of a partition, at least one, that which was written under the latest leader, and furthest.

    That one holds every acknowledged record: whoever leads has them all, and the others follow it.
    """
    return copies[0] if len(copies) == 1 else max(copies, key=_reaches)


def _reaches(folder: Path) -> tuple[int, int]:
    """The leader's epoch of the last batch in a partition's folder, and the offset behind it; -1, 0 of an empty one."""
    reached = (-1, 0)
    for segment in sorted(folder.glob("*.log"), reverse=True):
        try:
            content = segment.read_bytes()
        except OSError:
            continue
        first = int(segment.stem) if segment.stem.isdigit() else 0
        for batch, epoch in _batches(content, first, folder.name, []):
            reached = (epoch, batch.next_offset)
        if reached[0] >= 0:
            break
    return reached


def read_partition(folder: Path, partition: int, unread: list[str]) -> Iterator[LoggedRecord]:
    """Every record of one partition's folder; a segment that Kafka deletes meanwhile is passed over."""
    for segment in sorted(folder.glob("*.log")):
        try:
            content = segment.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            unread.append(f"Kafka {folder.name}: {segment.name} cannot be read: {error.strerror}")
            continue
        first = int(segment.stem) if segment.stem.isdigit() else 0
        for batch, _ in _batches(content, first, folder.name, unread):
            if batch.is_control_batch:
                continue
            for record in batch:
                yield LoggedRecord(partition, record.offset, record.key, record.value, list(record.headers))


def _batches(content: bytes, expected: int, name: str, unread: list[str]) -> Iterator[tuple[Any, int]]:
    """The sound record batches of a segment whose first offset is `expected`, each with the epoch of the leader that
    wrote it; the damaged ones go to `unread`.

    Kafka's checksum covers a batch from its attributes on. Its offset and its length lie before that: where they cannot
    be, reading goes on at the next place where a sound batch begins.
    """
    at = 0
    while at + _HEADER <= len(content):
        end = _end_of(content, at, expected)
        if end is None:
            at, skipped = _next_sound(content, at + 1, expected), at
            if at < len(content):
                unread.append(f"Kafka {name}: {at - skipped} bytes from offset {expected} on are damaged")
            continue
        batch = DefaultRecordBatch(content[at:end])
        follows = struct.unpack_from(">q", content, end)[0] if end + _HEADER <= len(content) else batch.next_offset
        if not batch.validate_crc():
            at = _next_sound(content, at + 1, expected)
            unread.append(f"Kafka {name}: the batch at offset {batch.base_offset} is damaged, as its checksum says")
        elif expected <= follows < batch.next_offset:
            at = end
            unread.append(f"Kafka {name}: a batch before offset {follows} is damaged: it says {batch.base_offset}")
        else:
            (epoch,) = struct.unpack_from(">i", content, at + _EPOCH_AT)
            at, expected = end, batch.next_offset
            yield batch, epoch


def _end_of(content: bytes, at: int, expected: int) -> int | None:
    """Where the batch at `at` ends; None when none can begin there, as where Kafka is still writing one."""
    offset, length = struct.unpack_from(">qi", content, at)
    end = at + _FRONT + length
    likely = expected <= offset < expected + _LARGEST_GAP and length >= _HEADER - _FRONT
    return end if likely and end <= len(content) and content[at + _MAGIC_AT] == _MAGIC else None


def _next_sound(content: bytes, start: int, expected: int) -> int:
    """The first place from `start` on where a batch begins whose checksum fits; the end when there is none."""
    magic = content.find(_MAGIC, start + _MAGIC_AT)
    while magic >= 0:
        at = magic - _MAGIC_AT
        if at + _HEADER <= len(content):
            end = _end_of(content, at, expected)
            if end is not None and DefaultRecordBatch(content[at:end]).validate_crc():
                return at
        magic = content.find(_MAGIC, magic + 1)
    return len(content)


def committed_offsets(data: Data, group: str, unread: list[str] | None = None) -> dict[tuple[str, int], int]:
    """The offsets that `group` has committed, by topic and partition: the next record that it will take.

    `unread` as in `read_topic`.
    """
    offsets: dict[tuple[str, int], int] = {}
    for record in read_topic(data, "__consumer_offsets", unread):
        place = _commit_key(record.key or b"", group)
        if place is None:
            continue
        if record.value is None:
            offsets.pop(place, None)
        else:
            offsets[place] = struct.unpack_from(">hq", record.value)[1]
    return offsets


def _commit_key(key: bytes, group: str) -> tuple[str, int] | None:
    if len(key) < 2 or struct.unpack_from(">h", key)[0] not in (0, 1):
        return None  # group metadata
    name, at = _text(key, 2)
    if name != group:
        return None
    topic, at = _text(key, at)
    return topic, struct.unpack_from(">i", key, at)[0]


def _text(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">h", data, at)
    return data[at + 2 : at + 2 + length].decode(), at + 2 + length
