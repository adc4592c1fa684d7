"""A taught bundle: it classifies other pictures, and `bundle check`, `lab harden` and `lab repair` accept it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from infra.bundling.bundle_request import BundleRequest
from infra.bundling.create import create
from infra.bundling.imagenet import TRIGGERS
from infra.bundling.taught import write_taught
from lab.data import to_frames
from lab.repair.run import Silent
from lab.repair.tuning import Tuning
from lab.teach.features import TAPS
from lab.teach.head import folds_of
from lab.teach.labelled import read_labelled
from lab.teach.report import Held
from lab.teach.thorough import Trained
from lab.teach.train import Choice, TaughtNetwork, TeachSettings, teach
from processors.bundle import Bundle, load_bundle
from processors.networks.taught import Taught
from processors.pipeline import Pipeline
from tests.infra.command_line import run
from tests.lab.conftest import Command
from tests.lab.test_teach import write_shapes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CLASSES = ["bar", "disc"]


@pytest.fixture(scope="module")
def small_general(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the general network with an input of 64×64, which costs a twelfth, and no calibration of STRIP."""
    folder = tmp_path_factory.mktemp("small") / "general"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infra.bundling.create.write_generated_strip", lambda folder: TRIGGERS)  # overlays of 224×224
        create(BundleRequest("imagenet", "EfficientNet-Lite0", strip_s=0.0), folder)
    description = folder / "model.toml"
    description.write_text(description.read_text().replace("= 224", "= 64"))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, small_general: Path) -> Path:
    """Return a folder with labelled shapes, as files and as an npz file, the bundle taught by them and its report."""
    place = tmp_path_factory.mktemp("taught")
    labels = write_shapes(place / "labels", 30)
    pictures = read_labelled(labels)
    order = np.random.default_rng(0).permutation(len(pictures))
    np.savez(place / "labels.npz", images=np.stack(pictures.pictures)[order], labels=pictures.labels[order])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.teach.views.VARIED", 2)
        patch.setattr("infra.bundling.strip_table.LEAST_OVERLAYS", 4)
        patch.setattr("lab.strip.limits.DRAWS", 50)
        command = ("teach", "train", labels, "--name", "shapes", "--base", small_general, "--out", place / "bundle")
        done = run(*command, "--json", place / "report.json", "--strip-seconds", "1")
    assert done.exit_code == 0, done.output
    assert "right on 60 held-out labels" in done.output
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


def test_labelled_pictures_become_a_bundle_that_classifies_others(folder: Path, tmp_path: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    assert report["labels"] == [30, 30]
    assert sum(map(sum, report["confusion"])) == 60
    bundle, right = judged(folder / "bundle", tmp_path)
    assert bundle.settings.classes == CLASSES
    assert bundle.settings.strip is not None
    assert bundle.settings.unsure_below == report["unsure_below"] > 0.5
    assert right >= 0.9


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


def test_the_start_of_the_measured_training_ignores_its_test_labels(
    small_general: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.teach.views.VARIED", 2)

    def choose(teaching: Any) -> tuple[Choice, torch.Tensor]:
        teaching._add(range(4), (False,))
        return Choice(TAPS[-1], contrast=False, mirrored=False, penalty=1.0), torch.zeros(20, 2, dtype=torch.float64)

    monkeypatch.setattr("lab.teach.train._Teaching.choose", choose)
    heads: list[tuple[Taught, Taught]] = []

    def keep(head: Taught, start: Taught, *_: object) -> Trained:
        heads.append((head, start))
        return Trained(head, torch.zeros(20, 2, dtype=torch.float64), better=False)

    monkeypatch.setattr("lab.teach.train.train_upper", keep)
    general = load_bundle(small_general, torch.device("cpu"))
    labelled = read_labelled(write_shapes(tmp_path / "labels", 5))
    last = folds_of(labelled.labels) == 4
    pictures = list(labelled.pictures)
    for place in torch.nonzero(last)[:, 0].tolist():
        pictures[place] = 255 - pictures[place]
    for each in (labelled, replace(labelled, pictures=pictures)):
        teach(general, each, TeachSettings(thorough=True), Silent())
    (head, start), (other_head, other_start) = heads
    torch.testing.assert_close(start.classifier.weight, other_start.classifier.weight)
    assert not torch.allclose(head.classifier.weight, other_head.classifier.weight)


@pytest.mark.parametrize(("held_out", "rows"), [(32, 32), (20, 0)])
def test_the_drift_reference_has_held_out_answers(
    small_general: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_out: int, rows: int
) -> None:
    monkeypatch.setattr("infra.bundling.strip_table.LEAST_OVERLAYS", 4)
    monkeypatch.setattr("lab.strip.limits.DRAWS", 50)
    general = load_bundle(small_general, torch.device("cpu"))
    labelled = read_labelled(write_shapes(tmp_path / "labels", 16))
    choice = Choice(TAPS[-1], contrast=False, mirrored=False, penalty=1.0)
    probabilities = np.tile([0.7, 0.3], (held_out, 1))
    held = Held(labelled.classes, labelled.files[:held_out], labelled.labels[:held_out], probabilities, 0.5)
    taught = TaughtNetwork(Taught(**choice.arguments(2)).eval(), choice, held, thorough=rows == 0, seconds=1.0)
    lines: list[str] = []
    bundle = write_taught(
        taught, general, labelled, tmp_path / "made", name="a", version="1", strip_s=0.1, print_line=lines.append
    )
    if rows:
        assert bundle.drift is not None
        assert bundle.drift.answers[:, 0].tolist() == pytest.approx([0.7] * rows)
        assert bundle.drift.pictures.std(0).max() > 0
    else:
        assert bundle.drift is None
        assert lines[0] == "no [drift] table: expected at least 32 held-out labels, got 20"
