"""Files in the folder of data sets, `POINTILLIST_DATA`."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """Return the folder of data sets. Raises SystemExit if none is set."""
    folder = os.environ.get("POINTILLIST_DATA")
    if not folder:
        raise SystemExit("POINTILLIST_DATA is missing: set it to the folder of data sets")
    return Path(folder)


def data_file(name: str) -> Path:
    """Return a file of the data sets. Raises SystemExit with the folder that should hold it."""
    file = data_folder() / name
    if not file.is_file():
        raise SystemExit(f"{name} is missing: put it into the folder POINTILLIST_DATA")
    return file


def sample_video(name: str = "intel_car-detection.mp4") -> Path:
    """Return the file of a sample video. Raises SystemExit with the folder that should hold it."""
    return data_file(f"video/{name}")


def sample_videos() -> list[Path]:
    """Return the files of all sample videos, sorted by name. Raises SystemExit with the folder if it holds none."""
    if not (files := present_videos()):
        raise SystemExit("sample videos are missing: put them into the folder video/ of POINTILLIST_DATA")
    return files


def present_videos() -> list[Path]:
    """Return the files of the sample videos, sorted by name; empty without any: the benchmark then uses scenes."""
    folder = os.environ.get("POINTILLIST_DATA")
    return sorted(Path(folder, "video").glob("*.mp4")) if folder else []
