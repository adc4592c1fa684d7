"""The table of results: one row for each way in which a video was sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PROFILES_SENT: Final = ("raw", "lossless")
JPEG: Final = "JPEG 90"
PRESETS: Final = ("ultrafast", "medium")


@dataclass(frozen=True)
class Row:
    """Means over the frames of one video; quality over every so many of them."""

    video: str
    way: str
    """A profile, `JPEG 90`, or `H.264` and a preset of libx264."""
    crf: int | None
    """libx264's constant rate factor."""
    frames: int
    compared: int
    bytes_a_frame: float
    """A whole message of ours with its tag; of the others the bare stream."""
    psnr_db: float
    ssim: float
    page_psnr_db: float
    cpu_ms: float
    """CPU time of the process for a frame."""
    jpeg_ms: float
    """The same of a JPEG at quality 90, taken in turn with it."""
    held_frames: int
    """Frames that the encoder has taken in when it gives the first one out, itself not counted."""


def h264(preset: str) -> str:
    """The name of a way."""
    return f"H.264 {preset}"


def equal(rows: list[Row], preset: str, target: Row) -> Row | None:
    """The smallest H.264 of a video whose PSNR is no lower than the target's."""
    enough = [
        row for row in rows if (row.video, row.way) == (target.video, h264(preset)) and row.psnr_db >= target.psnr_db
    ]
    return min(enough, key=lambda row: row.bytes_a_frame, default=None)
