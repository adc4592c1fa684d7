"""The table of results: one row for each way to send a video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PROFILES_SENT: Final = ("raw", "lossless")
JPEG: Final = "JPEG 90"
DROP: Final = 0.25
"""The drop ratio of the profiles. Rows do not name it."""
PRESETS: Final = ("ultrafast", "medium")


@dataclass(frozen=True)
class Row:
    """Means over the frames of one video. Quality is sampled at every n-th frame."""

    video: str
    way: str
    """A profile, `JPEG 90`, or `H.264` and a preset of libx264."""
    crf: int | None
    """libx264's constant rate factor."""
    frames: int
    compared: int
    bytes_a_frame: float
    """Bytes of a whole message with its tag for our profiles, and of the bare stream for the others."""
    psnr_db: float
    ssim: float
    page_psnr_db: float
    cpu_ms: float
    """CPU time of the process per frame."""
    jpeg_ms: float
    """CPU time per frame of a JPEG at quality 90, measured in turn with this way."""
    held_frames: int
    """Frames that the encoder buffers before it returns the first one, not counting that one."""


def h264(preset: str) -> str:
    """Return the name of the H.264 way with this preset."""
    return f"H.264 {preset}"


def equal(rows: list[Row], preset: str, target: Row) -> Row | None:
    """Return the smallest H.264 row of a video whose PSNR is no lower than the target's."""
    enough = [
        row for row in rows if (row.video, row.way) == (target.video, h264(preset)) and row.psnr_db >= target.psnr_db
    ]
    return min(enough, key=lambda row: row.bytes_a_frame, default=None)
