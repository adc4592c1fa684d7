"""What the drills make for themselves is what the system takes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import torch

from benchmarks.reliability.drills import suspicious_bundle
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


def test_the_wrong_bundle_loads_and_has_no_number_for_any_picture_but_a_black_one(tmp_path: Path) -> None:
    bundle = load_bundle(wrong_bundle(tmp_path / "wrong"), torch.device("cpu"))
    pictures = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    assert bool(bundle.logits(torch.zeros(1, 3, 32, 32)).isfinite().all())
    assert bool(bundle.logits(pictures).softmax(1).amax(1).isnan().all())
    assert bundle.settings.classes == load_bundle(shipped_bundle("scene"), torch.device("cpu")).settings.classes


def test_the_cameras_whose_frames_are_refused_send_small_ones_large_ones_and_changes() -> None:
    plans = parse_scenario(scenario(8), "replay").cameras()
    assert [(plan.profile, plan.source.size) for plan in plans] == (
        [("raw", None)] * 8 + [("raw", (96, 64))] * 2 + [("lossless", None)] * 2
    )


def test_what_is_recorded_or_judged_twice_is_counted(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.database.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(layout.database) as connection:
        connection.execute("create table frames (camera text, boot integer, seq integer)")
        connection.executemany("insert into frames values (?, ?, ?)", [("a", 1, 1), ("a", 1, 2), ("b", 1, 1)] * 2)
        connection.execute("insert into frames values ('a', 2, 1)")
    connection.close()
    assert counted(layout) == {"verdicts": 0, "recorded_twice": 3, "judged_twice": 0}
