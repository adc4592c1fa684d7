"""Bounds that all roles share: larger values are rejected before they cost memory."""

from __future__ import annotations

from typing import Final

BLOCK: Final = 8
"""Side of the blocks in which pixels are dropped."""
BLOCK_PIXELS: Final = BLOCK * BLOCK
MAX_DROPPED_PER_BLOCK: Final = 56
MAX_SIDE: Final = 8192
CAMERAS_AT_HAND: Final = 16_384
"""Cameras whose derived state, such as keys, a process caches: more than one machine has to serve. Beyond this number,
the least recently used entry is dropped and must be derived again.
"""
MAX_FRAMES_PER_SECOND: Final = 1000
"""Highest frame rate of one camera."""
LEAST_FRAMES_PER_SECOND: Final = 1 / 3600
"""Lowest frame rate in a camera's settings: one frame an hour. A camera that sends none is paused."""
MAX_AHEAD_MS: Final = 5 * 60_000
"""Furthest time ahead of the receiver's clock for a command or request. One from the far future, once obeyed, would
shut out every later one.
"""
MAX_FRAME_BYTES: Final = 14 * 2**20
"""Size of the decoded frame, height x width x channels: 2560x1440 RGB fits."""
USUAL_FRAME_PIXELS: Final = 1920 * 1088
"""Default limit of height x width in processors: 1080p, with its height rounded up to whole blocks."""
MAX_MESSAGE_BYTES: Final = 15 * 2**20
"""Size of one MQTT payload or Kafka record value."""
MAX_CONTROL_BYTES: Final = 256 * 1024
"""Size of a ledger, confirmation or command: parsed, one of empty ranges takes 20 times as much memory."""
MAX_SHED_RANGES: Final = 64
"""Shed ranges in a ledger. Above this number, a spool joins ranges between which no frame waits any more."""
MAX_LEDGER_BYTES: Final = 4096
"""Size of a signed ledger with that many ranges: each takes 22 bytes at most, all else less than 200."""
MAX_BOOT_FRAMES: Final = MAX_FRAMES_PER_SECOND * 10 * 366 * 86_400
"""Frames of one boot: ten years at the highest rate."""
PLAIN_MESSAGE_BYTES: Final = 64 * 1024
"""Size from which a frame message is checked to be mostly pixels before it is parsed."""
MAX_BROKER_BYTES: Final = 16 * 2**20
"""Message size limit of the brokers: a message with its headers and key."""
DEAD_LETTER_PAYLOAD_BYTES: Final = 4096
"""Bytes of a rejected payload that its dead letter keeps."""


def dropped_per_block(drop_ratio: float) -> int:
    """Return the number of pixels dropped in each block of 64 for a drop ratio in [0, 0.875]."""
    return round(drop_ratio * BLOCK_PIXELS)
