"""The command and the options that a benchmark records with its figures, and the parts that it must not leave out."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.models import codefend_live, eyes, generated_strip, own_model
from benchmarks.reliability import drills, fresh, frozen

UP = """
import sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir()
(out / "model.toml").touch()
while not (out / "seen").exists():
    time.sleep(0.01)
print("2 frames lost")
sys.exit(1)
"""
"""A command that writes its bundle, and fails after the first frame is recorded."""


def test_runs_of_other_options_are_not_mixed_with_those_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(state: Path, _bundle: Path, seed: int, *_: Any, **__: Any) -> dict[str, Any]:
        state.mkdir()
        return {"seed": seed, "passed": True}

    monkeypatch.setattr(codefend_live, "run", run)
    file = tmp_path / "live.json"

    def command(*more: str) -> None:
        monkeypatch.setattr(sys, "argv", ["live", "--bundle", "b", "--seeds", "1", "--json", str(file), *more])
        codefend_live.main()

    command()
    command("--first-seed", "1")
    with pytest.raises(SystemExit, match=r"live.json: expected runs of .*'probes': '0.05'"):
        command("--probes", "0.05")
    found: dict[str, Any] = json.loads(file.read_text())
    assert [each["seed"] for each in found["runs"]] == [0, 1]


def test_a_command_that_fails_gives_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepared(folder: Path, _which: str) -> list[str]:
        folder.mkdir()
        return []

    def cpu_seconds(_pid: int) -> float:
        (tmp_path / "scene" / "bundle" / "seen").touch()
        return 0.0

    monkeypatch.setattr(own_model, "prepared", prepared)
    monkeypatch.setattr(own_model, "cpu_seconds", cpu_seconds)
    monkeypatch.setattr(own_model, "COMMAND", (sys.executable, "-c", UP))
    monkeypatch.setattr(own_model, "first_record", lambda _: ("bundle@1", 1))
    with pytest.raises(RuntimeError, match=r"status 0, got status 1: \['2 frames lost'\]"):
        own_model.measured(tmp_path, "scene")


def test_without_sample_videos_the_benchmark_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTILLIST_DATA", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["frozen"])
    with pytest.raises(SystemExit, match="sample videos are missing"):
        frozen.main()


def test_a_video_of_an_unknown_group_is_rejected() -> None:
    with pytest.raises(SystemExit, match=r"garden\.mp4: expected a name with bottle, car, person"):
        eyes.group_of(Path("garden.mp4"))
    assert eyes.group_of(Path("intel_car-detection.mp4")) == "vehicle"


def test_a_video_without_motion_has_only_whole_frames() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    assert generated_strip.stacked([picture, picture], []).keys() == {"whole"}
    assert generated_strip.stacked([picture], [picture]).keys() == {"whole", "square"}


def test_a_fresh_clone_is_not_measured_with_the_packages_of_another_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "/elsewhere")
    assert "/elsewhere" not in fresh.environment(tmp_path).values()


def test_a_drill_for_two_cores_rejects_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(drills, "sample_video", lambda: tmp_path / "film.mp4")
    with pytest.raises(SystemExit, match="cores: expected 2 that this process may use, got 1"):
        drills.camera(tmp_path)
