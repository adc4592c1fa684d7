"""The measurement of cost against work: cells that are measured once, baselines, and the sweeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scale import cost
from benchmarks.scale.cost import cells, compare, run


def cell(cameras: int, fps: float, held: float = 1.0) -> dict[str, Any]:
    return {
        "cameras": cameras,
        "total_fps": cameras * fps,
        "window_s": 1.0,
        "held": held,
        "cpu_ms_per_frame": {"fleet": 1.0, "recorder": 0.5 + cameras / 1000},
        "cores_used": 0.5,
        "memory_bytes": {"fleet": 10**8 + 20_000 * cameras, "recorder": 10**7 + 5_000 * cameras},
        "latency_s": {"p50": 0.05, "p99": None},
        "frames_lost": 0,
    }


def test_a_cell_is_measured_once_and_no_cell_beyond_saturation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[float] = []

    def measure(_folder: Path, cameras: int, fps: float, _warm_s: float, _window_s: float) -> dict[str, Any]:
        measured.append(cameras * fps)
        return cell(cameras, fps, held=0.5 if cameras * fps > 100 else 1.0)

    monkeypatch.setattr(cost, "measure", measure)
    wanted = [("frames", 32, total / 32) for total in (16, 64, 128, 256)]
    for _ in range(2):
        run(tmp_path, wanted, 0.0, 1.0, "the command")
    assert measured == [16, 64, 128]
    assert len(json.loads((tmp_path / "rows.json").read_text())["cells"]) == 3


def test_each_baseline_is_measured_separately(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure_once(checkout: Path, _script: str, _out: str, folder: Path, *_: object) -> Any:
        """Measure a cell once for each folder of results, as `run` does."""
        file = Path(folder) / "rows.json"
        if not file.exists():
            times = float(checkout.name)
            cpu = {role: times * ms for role, ms in cell(8, 1.0)["cpu_ms_per_frame"].items()}
            file.write_text(json.dumps({"cells": {"8": cell(8, 1.0) | {"cpu_ms_per_frame": cpu}}}))
        return json.loads(file.read_text())

    monkeypatch.setattr(cost, "run_in_checkout", measure_once)
    (tmp_path / "rows.json").write_text(json.dumps({"cells": {"8": cell(8, 1.0) | {"cameras": 8}}}))
    for name, ratio in (("2", 0.5), ("4", 0.25)):
        compare(tmp_path, tmp_path / name, name, (), "the command")
        found = json.loads((tmp_path / "rows.json").read_text())["over_baseline"]
        assert found == {"8": {"baseline": name, "cpu": ratio}}


def test_the_sweeps_reach_ten_thousand_cameras_at_the_same_total() -> None:
    swept = [(cameras, cameras * fps) for sweep, cameras, fps in cells(False, [], 250.0) if sweep == "cameras"]
    assert {total for _, total in swept} == {250.0}
    assert swept[0][0] == 8
    assert swept[-1][0] == 10_000
