"""Kafka's own log files, read from disk: the audit trusts them rather than any process's counter.

Reading needs no broker, changes nothing, and is safe next to a broker that writes: an incomplete batch is the end. A
damaged batch is reported and skipped. With several nodes, each holds a copy of a partition. The copy with every
acknowledged record is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka.errors import KafkaError
from aiokafka.record.default_records import DefaultRecordBatch

_HEADER = struct.calcsize(">qiibIhiqqqhii")
_FRONT = struct.calcsize(">qi")
_MAGIC_AT = struct.calcsize(">qii")
_EPOCH_AT = struct.calcsize(">qi")
_MAGIC = 2
_LARGEST_GAP = 2**40
"""Largest gap between offsets that compaction explains; a larger one is damage."""


@dataclass(frozen=True, slots=True)
class LoggedRecord:
    """One record of one partition."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


Data = Path | Sequence[Path]
"""Kafka's `data` folder, or those of all its nodes."""


def partitions_of(data: Data, topic: str) -> list[int]:
    """Return the partitions of `topic` that have a folder in Kafka's `data`."""
    found = set()
    for node in _nodes(data):
        for folder in node.glob(f"{topic}-*"):
            suffix = folder.name[len(topic) + 1 :]
            if suffix.isdigit():
                found.add(int(suffix))
    return sorted(found)


def read_topic(data: Data, topic: str, unread: list[str] | None = None) -> Iterator[LoggedRecord]:
    """Yield every record of `topic` that Kafka still holds in its `data`, partition by partition, by offset.

    Damage is skipped, with one line in `unread` for each place.
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
    """Return the copy of a partition with the latest leader epoch and, within it, the highest end offset.

    That copy holds every acknowledged record: each leader has them all, and the others follow it. `copies` has at least
    one.
    """
    return copies[0] if len(copies) == 1 else max(copies, key=_reaches)


def _reaches(folder: Path) -> tuple[int, int]:
    """Return the leader epoch of a partition folder's last batch and the end offset; (-1, 0) when it is empty."""
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
    """Yield every record of one partition's folder; a segment that Kafka deletes meanwhile is skipped."""
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
            try:
                records = list(batch)
            # Sound bytes in a form that aiokafka cannot read: a missing codec, or a header's name that is not UTF-8.
            except (KafkaError, UnicodeDecodeError) as error:
                unread.append(f"Kafka {folder.name}: the batch at offset {batch.base_offset}: {error}")
                continue
            for record in records:
                yield LoggedRecord(partition, record.offset, record.key, record.value, list(record.headers))


def _batches(content: bytes, expected: int, name: str, unread: list[str]) -> Iterator[tuple[Any, int]]:
    """Yield a segment's sound record batches from offset `expected`, each with its leader epoch.

    Damaged batches go to `unread`. Kafka's checksum covers a batch from its attributes on, and neither its offset nor
    its length. If those are impossible, reading resumes at the next place where a sound batch begins.
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
    """Return the end of the batch at `at`; None when none can begin there, such as while Kafka is still writing it."""
    offset, length = struct.unpack_from(">qi", content, at)
    end = at + _FRONT + length
    likely = expected <= offset < expected + _LARGEST_GAP and length >= _HEADER - _FRONT
    return end if likely and end <= len(content) and content[at + _MAGIC_AT] == _MAGIC else None


def _next_sound(content: bytes, start: int, expected: int) -> int:
    """Return the first place from `start` on with a batch of valid checksum; the end of the file when there is none."""
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
    """Return the offsets that `group` has committed, by topic and partition: the next record to read.

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
