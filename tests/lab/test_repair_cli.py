"""`pointillist lab repair` as a user types it, in this process."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lab.repair.run as run_module
from infra.cli import main
from lab.data import LabelledPictures
from lab.repair.held_out import HeldOut, compare, split
from lab.repair.publish import write_cured
from processors.bundle import load_bundle
from schemas.errors import UserError
from tests.lab.sick_judge import SIDE, TARGET, pictures, sick_bundle, stamped, write_sick

KEYS = {
    "clean_accuracy", "attack_success", "fine_tune_only", "recovered_accuracy", "trigger_activation",
    "change_outside_trigger", "target_class", "seconds",
}  # fmt: skip
Command = Callable[..., tuple[int, str]]


def save(file: Path, found: LabelledPictures) -> Path:
    np.savez(file, images=found.images, labels=found.labels)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_sick(tmp_path / "bundle")
    save(tmp_path / "clean.npz", pictures(150, seed=1))
    seen = pictures(60, seed=2)
    flagged = stamped(seen.take(np.flatnonzero(seen.labels != TARGET)))
    (tmp_path / "quarantine" / "camera").mkdir(parents=True)
    for number, picture in enumerate(flagged.images):
        Image.fromarray(picture).save(tmp_path / "quarantine" / "camera" / f"{number}.png")
    return tmp_path


@pytest.fixture
def repair(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(**changed: object) -> tuple[int, str]:
        options: dict[str, object] = {
            "bundle": folder / "bundle", "clean": folder / "clean.npz", "quarantine": folder / "quarantine",
            "out": folder / "out", "json": folder / "figures.json",
        }  # fmt: skip
        words = [
            word for name, value in (options | changed).items() for word in (f"--{name.replace('_', '-')}", str(value))
        ]
        monkeypatch.setattr(sys, "argv", ["pointillist", "lab", "repair", *words])
        monkeypatch.setattr(run_module, "STEPS", (30, 30))
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, capsys.readouterr().err

    return run


def refusal(ended: tuple[int, str]) -> str:
    code, err = ended
    assert code == UserError.exit_code, err
    return next(line for line in err.splitlines() if line.startswith("error: "))


def test_repair_writes_a_bundle_a_report_and_the_documented_keys(folder: Path, repair: Command) -> None:
    code, err = repair()
    assert code == 0, err
    document = json.loads((folder / "figures.json").read_text())
    assert set(document) >= KEYS
    assert document["target_class"] == TARGET
    assert document["seconds"] > 0
    cured = load_bundle(folder / "out", torch.device("cpu"))
    assert cured.settings.version == "1-repaired"
    assert cured.model_id != sick_bundle().model_id
    report = (folder / "out" / "report.md").read_text()
    for picture in ("clean", "stamped", "opacity", "quarantined", "cleansed"):
        assert f"({picture}.png)" in report
        with Image.open(folder / "out" / f"{picture}.png") as shown:
            assert min(shown.size) >= 90


def test_a_network_that_loses_accuracy_is_refused_and_the_report_stays(
    folder: Path, repair: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "model.toml").write_text("of an earlier repair")
    monkeypatch.setattr(run_module, "compare", lambda before, after, labels: HeldOut(100, 95, 4, 1))
    line = refusal(repair())
    assert "not published" in line
    assert "3.0 points lost" in line
    assert "NOT published" in (folder / "out" / "report.md").read_text()
    assert json.loads((folder / "figures.json").read_text())["published"] is False
    assert not (folder / "out" / "model.toml").exists()


def test_bad_input_is_named(folder: Path, repair: Command) -> None:
    save(folder / "few.npz", pictures(20, seed=1))
    assert "clean pictures" in refusal(repair(clean=folder / "few.npz"))
    (folder / "empty").mkdir()
    assert "at least one PNG" in refusal(repair(quarantine=folder / "empty"))
    assert "folder of PNG files" in refusal(repair(quarantine=folder / "nowhere"))
    (folder / "empty" / "broken.png").write_bytes(b"no picture")
    assert "broken.png" in refusal(repair(quarantine=folder / "empty"))
    assert "default or paper" in refusal(repair(mode="other"))
    assert "another folder" in refusal(repair(out=folder / "bundle"))


def test_frames_of_another_size_are_brought_to_the_networks(folder: Path, repair: Command) -> None:
    for file in (folder / "quarantine").rglob("*.png"):
        with Image.open(file) as picture:
            large = picture.resize((2 * SIDE, 2 * SIDE), Image.Resampling.NEAREST)
        large.save(file)
    code, err = repair()
    assert code == 0, err


def test_strip_of_the_sick_bundle_is_carried_over_when_clean_frames_are_too_few(tmp_path: Path) -> None:
    source = write_sick(tmp_path / "sick")
    np.save(source / "overlays.npy", pictures(5, seed=9).images)
    with (source / "model.toml").open("a") as table:
        table.write('\n[strip]\noverlays = "overlays.npy"\nthreshold_bits = 0.25\nfrr = 0.01\n')
    cured, line = write_cured(
        tmp_path / "cured", source, run_module.trainable_copy(sick_bundle()), pictures(60, seed=1)
    )
    assert cured.settings.strip is not None
    assert cured.settings.strip.threshold_bits == 0.25
    assert "the sick bundle's" in line
    shutil.rmtree(source)
    assert load_bundle(tmp_path / "cured", torch.device("cpu")).overlays is not None


def test_held_out_frames_are_a_fifth_of_every_class_and_not_trained_on() -> None:
    labels = np.repeat(np.arange(5), 20)
    trained, held = split(labels, seed=0)
    assert np.array_equal(np.sort(np.concatenate([trained, held])), np.arange(100))
    assert np.array_equal(np.bincount(labels[held]), [4] * 5)


def test_accuracy_lost_is_counted_in_pairs() -> None:
    labels = np.zeros(200, np.int64)
    before, after = labels.copy(), labels.copy()
    before[:10], after[5:14] = 1, 1
    found = compare(before, after, labels)
    assert (found.right_before, found.broken, found.mended) == (190, 4, 5)
    assert found.acceptable
    assert not HeldOut(100, 95, 4, 1).acceptable
    assert HeldOut(20, 19, 1, 0).acceptable
