"""The sample videos in the folder of data sets, `POINTILLIST_DATA`."""

from __future__ import annotations

import os
from pathlib import Path


def sample_video(name: str = "intel_car-detection.mp4") -> Path:
    """Return the file of a sample video. Raises SystemExit with the folder that should hold it."""
    file = _folder() / name
    if not file.is_file():
        raise SystemExit(f"{name} is missing: put it into the folder video/ of POINTILLIST_DATA")
    return file


def sample_videos() -> list[Path]:
    """Return the files of all sample videos, sorted by name. Raises SystemExit with the folder if it holds none."""
    files = sorted(_folder().glob("*.mp4"))
    if not files:
        raise SystemExit("sample videos are missing: put them into the folder video/ of POINTILLIST_DATA")
    return files


def _folder() -> Path:
    return Path(os.environ.get("POINTILLIST_DATA", ""), "video")
