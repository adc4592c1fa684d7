"""Ledgers that claim more frames than any camera can have published, from one enrolled camera."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.security.attacks._costs import Message, measured
from benchmarks.security.attacks._good_traffic import now_ms
from benchmarks.security.attacks.outcome import Outcome
from schemas.keys.keys import CameraKey
from schemas.messages.frame import sign_message
from schemas.pointillist_pb2 import Ledger
from schemas.topics import Channel

CLAIMED: Final = 2**50
PER_S: Final = 2.0


def attack(folder: Path) -> Outcome:
    """Run the attack. Its aim is meaningless fleet counts, and an `up` that waits for frames that never come."""
    what = f"{PER_S:g} ledgers a second that claim {CLAIMED} frames, of which none is confirmed or all are, in turn"
    return measured(folder / "counts", what, _ledgers, PER_S)


def _ledgers(key: CameraKey) -> Iterator[Message]:
    number = 0
    while True:
        number += 1
        ledger = Ledger(
            boot_id=number,
            revision=1,
            started_ms=now_ms(),
            next=CLAIMED,
            confirmed_to=CLAIMED * (number % 2),
        )
        yield Message(Channel.EVENT, sign_message(key, ledger))
