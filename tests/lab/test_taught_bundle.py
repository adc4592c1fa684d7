"""A taught bundle: `bundle check`, `lab harden` and `lab repair` accept it like any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.data import to_frames
from lab.repair.tuning import Tuning
from lab.teach.labelled import read_labelled
from processors.bundle import Bundle, load_bundle
from processors.pipeline import Pipeline
from tests.infra.command_line import run
from tests.lab.conftest import Command
from tests.lab.test_teach import small_general, write_shapes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("taught")]
CLASSES = ["bar", "disc"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with labelled shapes, as files and as an npz file, and the bundle taught by them."""
    place = tmp_path_factory.mktemp("taught")
    labels = write_shapes(place / "labels", 30)
    pictures = read_labelled(labels)
    order = np.random.default_rng(0).permutation(len(pictures))
    np.savez(place / "labels.npz", images=np.stack(pictures.pictures)[order], labels=pictures.labels[order])
    general = small_general(place / "general")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.teach.views.VARIED", 2)
        patch.setattr("infra.bundling.strip_table.LEAST_OVERLAYS", 4)
        patch.setattr("lab.strip.limits.DRAWS", 50)
        command = ("teach", "train", labels, "--name", "shapes", "--base", general, "--out", place / "bundle")
        done = run(*command, "--strip-seconds", "1")
    assert done.exit_code == 0, done.output
    return place


def judged(folder: Path, tmp_path: Path) -> tuple[Bundle, float]:
    """Load a bundle. Return it, and the share of other shapes that it classifies right behind the drop."""
    bundle = load_bundle(folder, torch.device("cpu"))
    others = read_labelled(write_shapes(tmp_path / "others", 10))
    frames = to_frames(np.stack(others.pictures), torch.device("cpu"))
    kept = torch.rand(len(frames), 1, *frames.shape[2:], generator=torch.Generator().manual_seed(0)) >= 0.25
    with torch.inference_mode():
        found = Pipeline(bundle)(frames * kept, kept)
    return bundle, float((found.class_id.numpy() == others.labels).mean())


def test_bundle_check_accepts_a_taught_bundle(folder: Path) -> None:
    done = run("bundle", "check", folder / "bundle", "--images", folder / "labels", "--most", "10")
    assert done.exit_code == 0, done.output
    assert "3×64×64, 2 classes" in done.output
    assert "right: 100.0%" in done.output


def test_a_taught_bundle_can_be_hardened(
    folder: Path, lab: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.hardening.measure.STEPS", 2)
    monkeypatch.setattr("lab.hardening.measure.SAMPLES", 1)
    monkeypatch.setattr("lab.hardening.train.GUARD_STEPS", 2)
    out, report = tmp_path / "hardened", tmp_path / "figures.json"
    command = ("harden", "--bundle", folder / "bundle", "--data", folder / "labels.npz", "--out", out, "--json", report)
    lab(*command, "--epochs", 1, "--batch", 10, "--held-out", 20, "--measured", 8, "--rate", 0.001).success()
    hardened, right = judged(out, tmp_path)
    assert hardened.model_id.startswith("shapes@1-hardened+")
    assert hardened.settings.classes == CLASSES
    assert hardened.settings.strip is not None
    assert right >= 0.8
    assert json.loads(report.read_text())["bundle"] == hardened.model_id


def test_a_taught_bundle_can_be_repaired(
    folder: Path, lab: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The network has no backdoor, so no label has to be unlearned.
    monkeypatch.setattr("lab.repair.run.FT_SAM", Tuning(0.001, epochs=1))
    out, report = tmp_path / "repaired", tmp_path / "figures.json"
    command = ("repair", "--bundle", folder / "bundle", "--clean", folder / "labels.npz", "--mode", "clean")
    lab(*command, "--out", out, "--json", report).success()
    repaired, right = judged(out, tmp_path)
    assert repaired.model_id.startswith("shapes@1-repaired+")
    assert repaired.settings.classes == CLASSES
    assert right >= 0.8
    assert json.loads(report.read_text())["published"]
