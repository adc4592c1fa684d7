"""The page of a camera's cost describes the pictures that were measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness.data_sets import present_videos
from benchmarks.speed import camera_cost
from benchmarks.speed.camera_cost import Cost, measured, page


def test_the_page_of_scenes_does_not_mention_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTILLIST_DATA", str(tmp_path))
    shown = page([Cost("32×32", "raw", 1.0, 1.0, 3072, 2374, 500.0)])
    assert "on simulated scenes that move" in shown
    assert "video" not in shown


def test_each_profile_that_a_camera_would_send_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTILLIST_DATA", str(tmp_path))
    monkeypatch.setattr(camera_cost, "FRAMES", 3)
    monkeypatch.setattr(camera_cost, "TURNS", 1)
    assert [row.profile for row in measured((32, 32), tmp_path)] == ["raw", "lossless"]
    large = measured((160, 128), tmp_path)
    assert [row.profile for row in large] == ["raw", "lossless", "video"]
    assert large[0].bytes > large[2].bytes > 0


def test_without_a_folder_of_data_sets_no_videos_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "video").mkdir()
    (tmp_path / "video" / "other.mp4").touch()
    monkeypatch.setenv("POINTILLIST_DATA", str(tmp_path))
    assert present_videos() == [tmp_path / "video" / "other.mp4"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POINTILLIST_DATA")
    assert present_videos() == []
