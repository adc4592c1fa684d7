"""Bounds that every role agrees on: what is larger is refused before it costs memory."""

from __future__ import annotations

from typing import Final

BLOCK: Final = 8
"""Side of the blocks in which pixels are dropped."""
BLOCK_PIXELS: Final = BLOCK * BLOCK
MAX_DROPPED_PER_BLOCK: Final = 56
MAX_SIDE: Final = 8192
CAMERAS_AT_HAND: Final = 16_384
"""Cameras for which a process keeps at hand what it has worked out: more than one machine is asked to take. Beyond it
the least used give way, and cost the work again."""
MAX_FRAMES_PER_SECOND: Final = 1000
"""Of one camera."""
LEAST_FRAMES_PER_SECOND: Final = 1 / 3600
"""Of a camera that is told its rate: one in an hour. Which sends none is paused."""
MAX_AHEAD_MS: Final = 5 * 60_000
"""How far ahead of its receiver's clock a command or request may be issued: one of the far future, once obeyed, would
shut out every later one."""
MAX_FRAME_BYTES: Final = 14 * 2**20
"""Of the decoded frame, height x width x channels: 2560x1440 RGB fits."""
USUAL_FRAME_PIXELS: Final = 1920 * 1088
"""Height x width that processors take unless they are told of larger cameras: 1080p, and its height in whole blocks."""
MAX_MESSAGE_BYTES: Final = 15 * 2**20
"""Of one MQTT payload or Kafka record value."""
MAX_CONTROL_BYTES: Final = 256 * 1024
"""Of a ledger, confirmation or command: parsed, one of empty ranges takes 20 times as much."""
MAX_SHED_RANGES: Final = 64
"""Of a ledger. Above it a spool joins the ranges between which no frame waits any more."""
MAX_LEDGER_BYTES: Final = 4096
"""Of a signed ledger with that many ranges: each takes 22 bytes at most, all else less than 200."""
MAX_BOOT_FRAMES: Final = MAX_FRAMES_PER_SECOND * 10 * 366 * 86_400
"""Frames of one boot: ten years at the highest rate."""
PLAIN_MESSAGE_BYTES: Final = 64 * 1024
"""A frame message above it shows that it is mostly pixels before it is parsed."""
MAX_BROKER_BYTES: Final = 16 * 2**20
"""What the brokers are set to accept: a message with its headers and key."""
DEAD_LETTER_PAYLOAD_BYTES: Final = 4096
"""How much of a refused payload its dead letter keeps."""


def dropped_per_block(drop_ratio: float) -> int:
    """Pixels dropped in each block of 64 for a drop ratio in [0, 0.875]."""
    return round(drop_ratio * BLOCK_PIXELS)
