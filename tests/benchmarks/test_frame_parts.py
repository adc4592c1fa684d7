"""The parts of a frame's CPU time, measured on the requested number of frames."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.harness.videos import shades, write_video
from benchmarks.speed import frame_parts


def footage(file: Path, _fps: float, width: int, height: int) -> Path:
    """Write four frames of H.264, and return the file."""
    return write_video(file, shades(4, width, height, 60))


def test_all_times_are_measured_on_the_requested_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, threads = tmp_path / "parts.json", torch.get_num_threads()
    monkeypatch.setattr(frame_parts, "WARM", 1)
    monkeypatch.setattr(frame_parts, "collect_seldom", lambda: None)
    monkeypatch.setattr(frame_parts, "keep_freed", lambda: None)
    monkeypatch.setattr(frame_parts, "write_footage", footage)
    options = "--cameras 2 --frames 2 --apart 0 --size 80 64 --backend torch"
    monkeypatch.setattr("sys.argv", ["frame_parts.py", *options.split(), "--json", str(file)])
    frame_parts.main()
    torch.set_num_threads(threads)
    found = json.loads(file.read_text())
    assert found["frames"] == 2
    assert found["network"] > 0
