"""Bounds that all roles share: larger values are rejected before they cost memory."""

from __future__ import annotations

from typing import Final

BLOCK: Final = 8
"""Side of the blocks in which pixels are dropped."""
BLOCK_PIXELS: Final = BLOCK * BLOCK
MAX_DROPPED_PER_BLOCK: Final = 56
MAX_DROP_RATIO: Final = MAX_DROPPED_PER_BLOCK / BLOCK_PIXELS
MAX_SIDE: Final = 8192
MAX_CAMERAS: Final = 16_384
"""Number of cameras whose derived state, such as keys, a process caches. No single machine serves more cameras. Beyond
this number, the least recently used entry is dropped and must be derived again.
"""
MAX_FRAMES_PER_SECOND: Final = 1000
"""Highest frame rate of one camera."""
LEAST_FRAMES_PER_SECOND: Final = 1 / 3600
"""Lowest frame rate in a camera's settings: one frame an hour. A camera that sends none is paused."""
MAX_AHEAD_MS: Final = 5 * 60_000
"""Furthest time ahead of the receiver's clock for a command or request. If one from the far future were accepted, all
later ones would be older and rejected.
"""
MAX_FRAME_BYTES: Final = 14 * 2**20
"""Size of the decoded frame, height x width x channels: 2560x1440 RGB fits."""
USUAL_FRAME_PIXELS: Final = 1920 * 1088
"""Default limit of height x width in processors: 1080p, with its height rounded up to whole blocks."""
MAX_MESSAGE_BYTES: Final = 15 * 2**20
"""Size of one MQTT payload or Kafka record value."""
MAX_CONTROL_BYTES: Final = 256 * 1024
"""Size of a ledger, confirmation or command. A parsed message of empty ranges takes 20 times as much memory."""
MAX_SHED_RANGES: Final = 64
"""Shed ranges in a ledger. Above this number, a spool merges ranges that have no waiting frame between them."""
MAX_LEDGER_BYTES: Final = 4096
"""Size of a signed ledger with `MAX_SHED_RANGES` ranges. Each takes at most 22 bytes, the rest less than 200."""
MAX_ANNOUNCEMENT_BYTES: Final = 4096
"""Size of a signed `status` or `meta`."""
MAX_GROUP_FRAMES: Final = 1000
"""Frames of one group of a video. If a decoder was closed, all earlier ones of the group are decoded again."""
MAX_BOOT_FRAMES: Final = MAX_FRAMES_PER_SECOND * 10 * 366 * 86_400
"""Frames of one boot: ten years at the highest rate."""
PLAIN_MESSAGE_BYTES: Final = 64 * 1024
"""Size from which a frame message is parsed only if it is mostly pixels."""
MAX_BROKER_BYTES: Final = 16 * 2**20
"""Message size limit of the brokers: a message with its headers and key."""
MAX_CERTIFIED_FRAMES: Final = 16
"""Frames of one request for certificates."""
MAX_VIEWED_CAMERAS: Final = 16
"""Cameras with pictures at the higher rate at the same time."""
DEAD_LETTER_PAYLOAD_BYTES: Final = 4096
"""Bytes of a rejected payload that its dead letter keeps."""


def dropped_per_block(drop_ratio: float) -> int:
    """Return the number of pixels dropped in each block of 64 for a drop ratio in [0, 0.875]."""
    return round(drop_ratio * BLOCK_PIXELS)
