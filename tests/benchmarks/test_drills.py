"""What the drills make for themselves is what the system takes."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.drills import suspicious_bundle
from processors.bundle import load_bundle


def test_the_bundle_that_flags_every_probe_loads_and_accepts_none_early(tmp_path: Path) -> None:
    bundle = load_bundle(suspicious_bundle(tmp_path / "suspicious"), torch.device("cpu"))
    assert bundle.settings.strip is not None
    assert bundle.settings.strip.threshold_bits > len(bundle.settings.classes)
    assert bundle.settings.strip.rounds == ()
    assert bundle.overlays is not None
