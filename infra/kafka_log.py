"""Kafka's own log files, read where they lie: what the audit trusts rather than anyone's counter.

Reading needs no broker, changes nothing, and is safe beside one that writes: a batch that is not whole yet is the end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka.errors import CorruptRecordException
from aiokafka.record import MemoryRecords


@dataclass(frozen=True, slots=True)
class LoggedRecord:
    """One record of one partition."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def partitions_of(data: Path, topic: str) -> list[int]:
    """The partitions of `topic` that have a folder in Kafka's `data` folder."""
    found = []
    for folder in data.glob(f"{topic}-*"):
        suffix = folder.name[len(topic) + 1 :]
        if suffix.isdigit():
            found.append(int(suffix))
    return sorted(found)


def read_topic(data: Path, topic: str) -> Iterator[LoggedRecord]:
    """Every record of `topic` that Kafka still holds in its `data` folder, partition by partition, by offset."""
    for partition in partitions_of(data, topic):
        yield from read_partition(data / f"{topic}-{partition}", partition)


def read_partition(folder: Path, partition: int) -> Iterator[LoggedRecord]:
    """Every record of one partition's folder; a segment that Kafka deletes meanwhile is passed over."""
    for segment in sorted(folder.glob("*.log")):
        try:
            content = segment.read_bytes()
        except FileNotFoundError:
            continue
        for batch in _whole_batches(MemoryRecords(content)):
            if getattr(batch, "is_control_batch", False):
                continue
            for record in batch:
                yield LoggedRecord(partition, record.offset, record.key, record.value, list(record.headers))


def _whole_batches(records: MemoryRecords) -> Iterator[Any]:
    try:
        while records.has_next():
            batch = records.next_batch()
            if batch is None:
                return
            yield batch
    except CorruptRecordException:
        return


def committed_offsets(data: Path, group: str) -> dict[tuple[str, int], int]:
    """The offsets that `group` has committed, by topic and partition: the next record that it will take."""
    offsets: dict[tuple[str, int], int] = {}
    for record in read_topic(data, "__consumer_offsets"):
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
