"""Damage to Kafka's log files, and a batch with a header that no client of ours writes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

_HEAD = struct.Struct(">qi")
_IN_THE_BODY = 80


def damage_batch(log: Path, number: int) -> None:
    """Flip one bit in the records of the batch `number` (from 0) of a segment file."""
    _flip(log, _start(log, number) + _IN_THE_BODY)


def damage_length(log: Path, number: int) -> None:
    """Flip one bit in the length of the batch `number` (from 0). Kafka then does not find the next batch."""
    _flip(log, _start(log, number) + _HEAD.size - 1)


def misnamed_batch(values: Sequence[bytes], misnamed: int) -> bytes:
    """Return a valid batch of these records. The record `misnamed` has a header whose name is not UTF-8."""
    name = "a header's name"
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 2**20)
    for number, value in enumerate(values):
        builder.append(number, 1000, b"key", value, [(name, b"")] if number == misnamed else [])
    built = bytearray(bytes(builder.build()).replace(name.encode(), b"\xff" * len(name)))
    struct.pack_into(">I", built, 17, calc_crc32c(bytes(built[21:])))
    return bytes(built)


def _start(log: Path, number: int) -> int:
    content, at = log.read_bytes(), 0
    for _ in range(number):
        _, length = _HEAD.unpack_from(content, at)
        at += _HEAD.size + length
    return at


def _flip(log: Path, at: int) -> None:
    with log.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))
