"""Validly signed ledgers with very many shed ranges, each for another boot, from one enrolled camera."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.security.attacks._costs import Message, measured
from benchmarks.security.attacks._good_traffic import now_ms
from benchmarks.security.attacks.outcome import Outcome
from schemas.keys.keys import CameraKey
from schemas.messages.frame import sign_message
from schemas.pointillist_pb2 import Ledger, Range
from schemas.topics import Channel

RANGES: Final = (10_000, 60)
"""Ranges per ledger, in turn: as many as fit in a control message, and as many as an honest spool may have."""
PER_S: Final = 40.0


def attack(folder: Path) -> Outcome:
    """Run the attack. Its aim is a database that grows and an audit that does not end."""
    what = f"{PER_S:g} ledgers a second, each of another boot, with {RANGES[0]} and {RANGES[1]} shed ranges in turn"
    return measured(folder / "ledgers", what, _ledgers, PER_S)


def _ledgers(key: CameraKey) -> Iterator[Message]:
    number = 0
    while True:
        number += 1
        count = RANGES[number % 2]
        ledger = Ledger(
            boot_id=number,
            revision=1,
            started_ms=now_ms(),
            next=2 * count,
            shed=[Range(first=2 * place, last=2 * place) for place in range(count)],
        )
        yield Message(Channel.EVENT, sign_message(key, ledger))
