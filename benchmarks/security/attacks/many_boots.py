"""A new boot with every message, alternately as a ledger and as a frame, from one enrolled camera."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.security.attacks._costs import Message, measured
from benchmarks.security.attacks._good_traffic import now_ms
from benchmarks.security.attacks.outcome import Outcome
from schemas.keys.keys import CameraKey
from schemas.messages.frame import Encoding, encode_frame, sign_message
from schemas.pointillist_pb2 import Ledger
from schemas.topics import Channel

PER_S: Final = 90.0


def attack(folder: Path) -> Outcome:
    """Run the attack. Its aim is rows for boots that nothing removes."""
    return measured(folder / "boots", f"{PER_S:g} boots a second, each with one ledger or one frame", _boots, PER_S)


def _boots(key: CameraKey) -> Iterator[Message]:
    picture = np.zeros((32, 32, 3), np.uint8)
    number = 0
    while True:
        number += 1
        if number % 2:
            ledger = Ledger(boot_id=number, revision=1, started_ms=now_ms(), next=1)
            yield Message(Channel.EVENT, sign_message(key, ledger))
        else:
            yield Message(Channel.FRAME, encode_frame(key, number, 0, now_ms(), picture, Encoding(16)))
