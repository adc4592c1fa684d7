"""What the drills make for themselves is what the system takes, and a short one of hostile payloads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.drills import hostile, suspicious_bundle
from processors.bundle import load_bundle


def test_the_bundle_that_flags_every_probe_loads_and_accepts_none_early(tmp_path: Path) -> None:
    bundle = load_bundle(suspicious_bundle(tmp_path / "suspicious"), torch.device("cpu"))
    assert bundle.settings.strip is not None
    assert bundle.settings.strip.threshold_bits > len(bundle.settings.classes)
    assert bundle.settings.strip.rounds == ()
    assert bundle.overlays is not None


@pytest.mark.brokers
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_hostile_payloads_are_refused_and_the_good_traffic_is_unharmed(tmp_path: Path) -> None:
    found = hostile(tmp_path, messages=4000, cameras=4, pause_s=1.0)
    assert found["frames_recorded"] == found["frames_published"]
    assert found["frames_lost"] == found["frames_shed"] == found["frames_dead_lettered"] == 0
    assert found["frames_foreign"] > found["hostile"] / 2
    assert found["replays_removed"] > 0
    assert (found["audit"]["status"], found["audit"]["frames_lost"]) == (0, 0)
