"""Kafka's log files, to damage them."""

from __future__ import annotations

import struct
from pathlib import Path

_HEAD = struct.Struct(">qi")
_IN_THE_BODY = 80


def damage_batch(log: Path, number: int) -> None:
    """Flip one bit in the records of the batch `number` (from 0) of a segment file."""
    _flip(log, _start(log, number) + _IN_THE_BODY)


def damage_length(log: Path, number: int) -> None:
    """Flip one bit in the length of the batch `number` (from 0), so that Kafka does not find the next one."""
    _flip(log, _start(log, number) + _HEAD.size - 1)


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
