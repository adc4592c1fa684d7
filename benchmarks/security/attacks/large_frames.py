"""The largest frames that processors accept, as fast as the MQTT broker reads them, from one enrolled camera."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.security.attacks._costs import Message, measured
from benchmarks.security.attacks._good_traffic import now_ms
from benchmarks.security.attacks.outcome import Outcome
from schemas.keys.keys import CameraKey
from schemas.messages.frame import Encoding, encode_frame
from schemas.topics import Channel

SHAPE: Final = (1424, 1464, 3)
"""`schemas.limits.USUAL_FRAME_PIXELS` pixels in colour: 6 MB a frame."""
FRAMES: Final = 24
PER_S: Final = 90.0
"""Messages per second, below the message quota. The connection is slower than this."""


def attack(folder: Path) -> Outcome:
    """Run the attack. Its aim is to delay the other cameras."""
    what = f"valid frames of {SHAPE[1]}x{SHAPE[0]}x{SHAPE[2]} as fast as the broker reads them"
    return measured(folder / "large", what, _frames, PER_S)


def _frames(key: CameraKey) -> Iterator[Message]:
    noise = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    frames = [encode_frame(key, 1, seq, now_ms(), noise, Encoding(16)) for seq in range(FRAMES)]
    return cycle(Message(Channel.FRAME, frame) for frame in frames)
