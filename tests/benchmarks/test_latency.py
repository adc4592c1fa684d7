"""The stages of a frame's latency from stamps, and the table of results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import latency
from benchmarks.speed.latency import STRETCHES, read_stamps, stretches

WAY = ("captured", *STRETCHES)
MS = 10**6


def test_the_earliest_stamp_of_a_frame_counts_across_files(tmp_path: Path) -> None:
    (tmp_path / "bridge-1.tsv").write_text(f"{9 * MS}\treceived\tlab/a/1/0\n{5 * MS}\treceived\tlab/a/1/0\n")
    (tmp_path / "bridge-2.tsv").write_text(f"{7 * MS}\treceived\tlab/a/1/0\n{8 * MS}\tsent\tlab/a/1/1\n")
    assert read_stamps(tmp_path) == {"lab/a/1/0": {"received": 5 * MS}, "lab/a/1/1": {"sent": 8 * MS}}


def test_stretches_are_differences_of_stamps_and_add_up_to_the_whole_way() -> None:
    probe = {what: number**2 * MS for number, what in enumerate(WAY)}
    plain = {what: at_ns for what, at_ns in probe.items() if what != "checked"}
    lost = {"captured": 0, "spooled": MS}
    found = stretches([probe, plain, lost])
    assert set(found) == {*WAY[1:], "whole way"}
    assert len(found["checked"]) == 1
    number = WAY.index("answered")
    assert found["answered"] == [number**2 - (number - 1) ** 2, number**2 - (number - 2) ** 2]
    ways = [sum(values[n] for values in found.values() if len(values) == 2) for n in (0, 1)]
    whole = float((len(WAY) - 1) ** 2)
    assert found["whole way"] == [whole, whole]
    assert ways == [2 * whole - found["checked"][0], 2 * whole]


def test_each_table_has_its_own_rounds_and_its_own_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Path] = []

    def measure(_cameras: int, _fps: float, _seconds: float, checkout: Path) -> dict[str, object]:
        measured.append(checkout)
        seconds = 1.0 if checkout == Path.cwd() else 2.0 if checkout.name == "first" else 4.0
        return {
            "p50_s": seconds * len(measured), "p99_s": seconds * len(measured), "frames_lost": 0,
            "stretches_ms": {"whole way": {"p50": 1.0, "p99": 1.0}}, "cpu_ms_per_frame": {"up": seconds},
        }  # fmt: skip

    def summary(*options: str) -> dict[str, Any]:
        command = ["latency", "--folder", str(tmp_path), "--load", "8x2", *options]
        monkeypatch.setattr(sys, "argv", command)
        latency.main()
        found: dict[str, Any] = json.loads((tmp_path / "latency.json").read_text())["summary"]["8x2"]
        return found

    monkeypatch.setattr(latency, "run", measure)
    assert summary("--rounds", "3")["this"]["p50_s"] == 2.0
    assert summary("--rounds", "1")["this"]["p50_s"] == 1.0
    for name, ratio in (("first", 0.5), ("second", 0.25)):
        found = summary("--rounds", "1", "--baseline", str(tmp_path / name))
        assert found["other"] == name
        assert found["over_baseline"]["cpu"] == ratio
    assert measured[3:] == [Path.cwd(), tmp_path / "first", Path.cwd(), tmp_path / "second"], (
        "both sides are measured in turns"
    )
    summary("--rounds", "1", "--baseline", str(tmp_path / "second"))
    assert len(measured) == 7, "the same two sides are not measured again"
    monkeypatch.setattr("platform.python_version", lambda: "3.99")
    summary("--rounds", "1", "--baseline", str(tmp_path / "second"))
    assert measured[7:] == [Path.cwd(), tmp_path / "second"], "rows of another machine are not reused"
