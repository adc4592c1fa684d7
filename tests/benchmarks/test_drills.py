"""The bundles, scenarios, counts and options of the drills."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.reliability import drills
from benchmarks.reliability.drills import suspicious_bundle
from benchmarks.reliability.groups import added_processor
from benchmarks.reliability.nodes import FAULTS
from benchmarks.reliability.replayed import counted, scenario, wrong_bundle
from infra.state_folder import Layout
from processors.bundle import load_bundle, shipped_bundle
from producers.simulation.scenario import parse_scenario


def test_the_bundle_that_flags_every_probe_loads_and_accepts_none_early(tmp_path: Path) -> None:
    bundle = load_bundle(suspicious_bundle(tmp_path / "suspicious"), torch.device("cpu"))
    assert bundle.settings.strip is not None
    assert bundle.settings.strip.threshold_bits > len(bundle.settings.classes)
    assert bundle.settings.strip.rounds == ()
    assert bundle.overlays is not None


def test_the_wrong_bundle_loads_and_returns_nan_except_for_black_pictures(tmp_path: Path) -> None:
    bundle = load_bundle(wrong_bundle(tmp_path / "wrong"), torch.device("cpu"))
    pictures = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    assert bool(bundle.logits(torch.zeros(1, 3, 32, 32)).isfinite().all())
    assert bool(bundle.logits(pictures).softmax(1).amax(1).isnan().all())
    assert bundle.settings.classes == load_bundle(shipped_bundle("scene"), torch.device("cpu")).settings.classes


def test_the_replay_scenario_has_cameras_with_small_large_and_lossless_frames() -> None:
    plans = parse_scenario(scenario(8), "replay").cameras()
    assert [(plan.profile, plan.source.size) for plan in plans] == (
        [("raw", None)] * 8 + [("raw", (96, 64))] * 2 + [("lossless", None)] * 2
    )


def test_frames_that_are_recorded_or_judged_twice_are_counted(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.database.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(layout.database) as connection:
        connection.execute("create table frames (camera text, boot integer, seq integer)")
        connection.executemany("insert into frames values (?, ?, ?)", [("a", 1, 1), ("a", 1, 2), ("b", 1, 1)] * 2)
        connection.execute("insert into frames values ('a', 2, 1)")
    connection.close()
    assert counted(layout) == {"verdicts": 0, "recorded_twice": 3, "judged_twice": 0}


@pytest.fixture
def drill_calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace all drills by one that returns the number of its call for each fault; return the options of the calls."""
    calls: list[dict[str, Any]] = []

    def drill(_folder: Path, **options: Any) -> dict[str, Any]:
        calls.append(options)
        return {fault: {"run": len(calls)} for fault in options.get("faults", FAULTS)}

    for name in drills.DRILLS:
        monkeypatch.setitem(drills.DRILLS, name, drill)
    return calls


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["drills", *map(str, arguments)])
    drills.main()


def test_a_drill_rejects_an_option_that_it_does_not_have(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], drill_calls: list[dict[str, Any]]
) -> None:
    for arguments in (("fleet", "--cameras", 64), ("camera", "--fps", 5), ("nodes", "--profile", "video")):
        with pytest.raises(SystemExit):
            command(monkeypatch, *arguments)
        assert f"{arguments[1]}: expected one of the drills" in capsys.readouterr().err
    assert not drill_calls


def test_one_fault_of_the_nodes_can_be_measured_and_a_file_keeps_the_other_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, drill_calls: list[dict[str, Any]]
) -> None:
    command(monkeypatch, "nodes", "--fault", "kill")
    command(monkeypatch, "nodes", "--fps", 8, "--json", tmp_path / "nodes.json")
    command(monkeypatch, "nodes", "--fault", "hang", "--seconds", 60, "--json", tmp_path / "nodes.json")
    assert drill_calls == [{"faults": ["kill"]}, {"fps": 8.0}, {"faults": ["hang"], "seconds": 60.0}]
    found = json.loads((tmp_path / "nodes.json").read_text())
    assert found == {"drill": "nodes", "result": {name: {"run": 3 if name == "hang" else 2} for name in FAULTS}}


def test_an_added_processor_that_ends_by_itself_fails_the_drill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").mkdir()
    program = "import sys; print('no broker', flush=True); sys.exit(3)"
    monkeypatch.setattr("benchmarks.reliability.groups.COMMAND", (sys.executable, "-c", program))
    log = tmp_path / "added.log"
    with (
        pytest.raises(RuntimeError, match="got status 3: no broker"),
        added_processor(tmp_path / "state", tmp_path / "bundle") as added,
    ):
        assert added.wait(60) == 3
    assert log.read_text() == "no broker\n"
