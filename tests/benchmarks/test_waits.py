"""Waits of benchmarks for a system that has ended or that hangs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cameras import __main__ as cameras
from benchmarks.cameras import site
from benchmarks.harness.waiting import wait_until


def test_a_camera_run_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "END_S", 0.1)
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('', flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert site.CameraRun(process, tmp_path / "log").end() == -9


def test_a_failed_camera_run_is_not_written_as_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(*_: Any) -> dict[str, Any]:
        return {"exit_status": 1}

    for part in ("trouble", "whole_file", "large_stream"):
        monkeypatch.setattr(cameras, part, failed)
    monkeypatch.setattr(sys, "argv", ["cameras", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="trouble: expected status 0 of `camera run`, got 1"):
        cameras.main()
    assert not (tmp_path / "cameras.json").exists()


def test_a_page_written_again_keeps_the_cores_of_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cameras, "page", lambda _: "")
    parts: dict[str, Any] = {"trouble": {}, "file": {}, "large": {}, "large-2": {}}
    (tmp_path / "cameras.json").write_text(json.dumps({"cores": 999, **parts}))
    monkeypatch.setattr(sys, "argv", ["cameras", "--out", str(tmp_path)])
    monkeypatch.delenv("POINTILLIST_DATA", raising=False)
    cameras.main()
    assert json.loads((tmp_path / "cameras.json").read_text())["cores"] == 999


def test_streams_with_numbers_in_their_pixels_are_sent_without_a_video_codec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []

    def large(_folder: Path, _fps: int, _seconds: float, options: dict[str, Any]) -> dict[str, Any]:
        sent.append(options)
        return {"exit_status": 0}

    (tmp_path / "video").mkdir()
    (tmp_path / "video" / "intel_car-detection.mp4").touch()
    monkeypatch.setenv("POINTILLIST_DATA", str(tmp_path))
    for part in ("trouble", "whole_file"):
        monkeypatch.setattr(cameras, part, lambda *_: {"exit_status": 0})
    monkeypatch.setattr(cameras, "large_stream", large)
    monkeypatch.setattr(cameras, "page", lambda _: "")
    monkeypatch.setattr(sys, "argv", ["cameras", "--out", str(tmp_path)])
    cameras.main()
    assert [(each["fps"], each.get("profile")) for each in sent] == [(0, "raw"), (1, "raw")]


def test_a_wait_that_is_too_long_names_its_condition() -> None:
    answers = iter((False, False, True))
    assert wait_until(lambda: next(answers), "the third answer", 60, every_s=0.01) >= 0.02
    with pytest.raises(TimeoutError, match=r"^a frame: expected within 0\.02 s, got a timeout$"):
        wait_until(lambda: False, "a frame", 0.02, every_s=0.01)
