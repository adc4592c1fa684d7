"""Kafka's log files, to damage them."""

from __future__ import annotations

import struct
from pathlib import Path

_HEAD = struct.Struct(">qi")
_IN_THE_BODY = 80


def damage_batch(log: Path, number: int) -> None:
    """Flip one bit in the records of the batch `number` (from 0) of a segment file."""
    content, at = log.read_bytes(), 0
    for _ in range(number):
        _, length = _HEAD.unpack_from(content, at)
        at += _HEAD.size + length
    with log.open("r+b") as file:
        file.seek(at + _IN_THE_BODY)
        file.write(bytes([content[at + _IN_THE_BODY] ^ 16]))
