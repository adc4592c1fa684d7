"""The page of a camera's cost describes the pictures that were measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.speed.camera_cost import Cost, page


def test_the_page_of_scenes_says_nothing_of_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTILLIST_DATA", str(tmp_path))
    shown = page([Cost("32×32", "raw", 1.0, 1.0, 3072, 2374, 500.0)])
    assert "on simulated scenes that move" in shown
    assert "video" not in shown
