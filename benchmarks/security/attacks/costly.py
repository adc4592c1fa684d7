"""Attacks of an enrolled camera that cause cost by valid messages: a large database, a slow audit, late frames."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count, cycle
from typing import Final

import numpy as np

from benchmarks.security.attacks._costs import Message, measured
from schemas.clock import unix_ms
from schemas.keys.keys import CameraKey
from schemas.messages.frame import Encoding, encode_frame, sign_message
from schemas.pointillist_pb2 import Ledger, Range
from schemas.topics import Channel

RANGES: Final = (10_000, 60)
"""Ranges per ledger, in turn: as many as fit in a control message, and as many as an honest spool may have."""
CLAIMED: Final = 2**50
LARGE: Final = (576, 592, 3)
"""A frame of 768 kB: at 1.3 a second it is just within the byte quota of a fleet of small cameras, 1 MiB/s."""
LARGEST: Final = (1424, 1464, 3)
"""`schemas.limits.USUAL_FRAME_PIXELS` pixels in colour: 6 MB a frame."""
FRAMES: Final = 24


def hostile_ledgers(key: CameraKey) -> Iterator[Message]:
    """Yield ledgers with very many shed ranges, each for another boot. The aim is an audit that does not end."""
    for number in count(1):
        ranges = RANGES[number % 2]
        shed = [Range(first=2 * place, last=2 * place) for place in range(ranges)]
        ledger = Ledger(boot_id=number, revision=1, started_ms=unix_ms(), next=2 * ranges, shed=shed)
        yield Message(Channel.EVENT, sign_message(key, ledger))


def impossible_counts(key: CameraKey) -> Iterator[Message]:
    """Yield ledgers with impossible counts. The aim is an `up` that waits for frames that never come."""
    for number in count(1):
        confirmed_to = CLAIMED * (number % 2)
        ledger = Ledger(boot_id=number, revision=1, started_ms=unix_ms(), next=CLAIMED, confirmed_to=confirmed_to)
        yield Message(Channel.EVENT, sign_message(key, ledger))


def large_frames(key: CameraKey, shape: tuple[int, int, int]) -> Iterator[Message]:
    """Yield large valid frames without end. The aim is to delay the other cameras."""
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    frames = [encode_frame(key, 1, seq, unix_ms(), noise, Encoding(16)) for seq in range(FRAMES)]
    return cycle(Message(Channel.FRAME, frame) for frame in frames)


def many_boots(key: CameraKey) -> Iterator[Message]:
    """Yield one ledger or one frame for each of an endless series of boots. The aim is boot rows that nothing
    removes."""
    picture = np.zeros((32, 32, 3), np.uint8)
    for number in count(1):
        if number % 2:
            ledger = Ledger(boot_id=number, revision=1, started_ms=unix_ms(), next=1)
            yield Message(Channel.EVENT, sign_message(key, ledger))
        else:
            yield Message(Channel.FRAME, encode_frame(key, number, 0, unix_ms(), picture, Encoding(16)))


COSTLY: Final = {
    "hostile-ledgers": partial(
        measured, attacker=hostile_ledgers, per_s=40.0,
        what=f"40 ledgers a second, each of another boot, with {RANGES[0]} and {RANGES[1]} shed ranges in turn",
    ),
    "large-frames": partial(
        measured, attacker=partial(large_frames, shape=LARGE), per_s=1.3,
        what=f"valid frames of {LARGE[1]}x{LARGE[0]}x{LARGE[2]} as fast as the camera's byte quota allows",
    ),
    "frame-flood": partial(
        # Messages per second below the message quota: the connection is slower than this.
        measured, attacker=partial(large_frames, shape=LARGEST), per_s=90.0,
        what=f"valid frames of {LARGEST[1]}x{LARGEST[0]}x{LARGEST[2]} as fast as the broker reads them, over the quota",
    ),
    "impossible-counts": partial(
        measured, attacker=impossible_counts, per_s=2.0,
        what=f"2 ledgers a second that claim {CLAIMED} frames, of which none is confirmed or all are, in turn",
    ),
    "many-boots": partial(
        measured, attacker=many_boots, per_s=90.0, what="90 boots a second, each with one ledger or one frame",
    ),
}  # fmt: skip
"""Attacks by name; each takes the folder of the system's state."""
