"""The sample videos in the folder of data sets, `POINTILLIST_DATA`."""

from __future__ import annotations

import os
from pathlib import Path


def sample_video(name: str = "intel_car-detection.mp4") -> Path:
    """Return the file of a sample video. Raises SystemExit with the folder that should hold it."""
    file = Path(os.environ.get("POINTILLIST_DATA", "")) / "video" / name
    if not file.is_file():
        raise SystemExit(f"{name} is missing: put it into the folder video/ of POINTILLIST_DATA")
    return file
