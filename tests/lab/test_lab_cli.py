"""The commands `pointillist lab evaluate` and `pointillist lab psnr`, in this process."""

from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from infra.cli.lab.shared import shown_command
from processors.device.backends import engines as engines_module
from processors.device.backends.choose import BackendChoice, BackendRequest
from processors.stages.learned import Restorers
from tests.lab.colour_classifier import coloured_pictures, save_pictures
from tests.lab.conftest import Command


def read_json(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(file.read_text())
    return document


def test_evaluate_writes_the_documented_keys(lab: Command, bundle: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "results" / "clean.json"
    result = lab("evaluate", "--bundle", bundle, "--data", data, "--drop-ratio", 0.25, "--json", file, "--images", 9)
    result.success()
    found = read_json(file)
    assert found["images"] == found["correct_undefended"] == 9
    assert set(found["accuracy"]) == {"plain", "reconstructed", "denoised"}
    assert found["restored"] is None
    assert found["relative_accuracy"] == pytest.approx(found["accuracy"]["denoised"])
    assert found["psnr_db"] > 20
    assert found["frames_per_second"] > 0
    low, high = found["intervals"]["relative_accuracy"]
    assert low <= found["relative_accuracy"] <= high
    assert found["settings"]["mode"] == "default"
    assert "relative_accuracy" in result.out


def test_evaluate_attacks_the_bare_network(lab: Command, bundle: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "attacked.json"
    result = lab(
        "evaluate", "--bundle", bundle, "--data", data, "--drop-ratio", 0.25, "--json", file, "--mode", "paper",
        "--attack", "fgsm", "--eps", 0.02, "--untargeted",
    )  # fmt: skip
    result.success()
    found = read_json(file)
    assert found["attacked_undefended"] == found["accuracy"]["plain"] == 0
    assert found["broken_by_the_attack"] == 12
    assert found["restored"] == found["relative_accuracy"]
    # A bound of .02 is 5.1 levels, which is 5 after rounding to 8 bits.
    assert found["linf"] == pytest.approx(5 / 255, rel=1e-5)
    assert found["settings"] | {"bundle": ""} == {
        "bundle": "", "data": str(data), "drop": 0.25, "mode": "paper", "masks": "spread", "seed": 0,
        "attack": "fgsm", "eps": 0.02, "targeted": False, "device": "cpu", "threads": torch.get_num_threads(),
    }  # fmt: skip


def test_an_onnx_network_is_evaluated_clean(lab: Command, onnx_bundle: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "clean.json"
    result = lab("evaluate", "--bundle", onnx_bundle, "--data", data, "--drop-ratio", 0.25, "--json", file)
    result.success()
    assert read_json(file)["correct_undefended"] == 12


def test_attacks_by_gradients_reject_an_onnx_network(
    lab: Command, onnx_bundle: Path, data: Path, tmp_path: Path
) -> None:
    options = ("--drop-ratio", 0.25, "--json", tmp_path / "x.json", "--attack", "pgd")
    assert "gradients" in lab("evaluate", "--bundle", onnx_bundle, "--data", data, *options).refusal()


def test_psnr_writes_means_rows_and_the_number_of_skipped_files(lab: Command, tmp_path: Path) -> None:
    folder, file = tmp_path / "pictures", tmp_path / "psnr.json"
    folder.mkdir()
    ramp = np.add.outer(np.arange(24), np.arange(40)).astype(np.uint8) * 3
    Image.fromarray(ramp).save(folder / "ramp.png")
    Image.fromarray(np.dstack([ramp, ramp, 255 - ramp])).save(folder / "ramp.jpg")
    (folder / "notes.txt").write_text("not a picture")
    result = lab("psnr", "--images", folder, "--drop-ratio", 0.25, "--json", file)
    assert result.code == 0
    assert "skipped notes.txt" in result.err
    found = read_json(file)
    assert (found["images"], found["skipped"]) == (2, 1)
    for name in ("psnr_db", "paper_psnr_db", "biharmonic_psnr_db"):
        assert found[name] == pytest.approx(np.mean([row[name] for row in found["pictures"]]))
    for name in ("seconds", "biharmonic_seconds"):
        assert found[name] == pytest.approx(sum(row[name] for row in found["pictures"]))


def test_psnr_runs_the_restorer_like_a_processor_unless_torch_is_selected(
    lab: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backends: list[str] = []
    real = engines_module.restorers

    def recorded_restorers(request: BackendRequest, threads: int) -> tuple[BackendChoice, Restorers]:
        backends.append(request.backend)
        return real(BackendRequest("torch"), threads)

    monkeypatch.setattr(engines_module, "restorers", recorded_restorers)
    picture = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    Image.fromarray(picture).save(tmp_path / "noise.png")
    for extra, backend in (((), "auto"), (("--backend", "torch"), "torch")):
        file = tmp_path.parent / f"{backend}.json"
        assert lab("psnr", "--images", tmp_path, "--drop-ratio", 0.25, "--json", file, *extra).code == 0
        assert read_json(file)["settings"]["backend"] == backend
    assert backends == ["auto", "torch"]


def test_the_error_for_a_missing_library_names_the_extra(
    lab: Command, bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def import_without_foolbox(name: str, *rest: Any, **options: Any) -> Any:
        if name == "lab.restoration.evaluate":
            raise ModuleNotFoundError("No module named 'foolbox'", name="foolbox")
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", import_without_foolbox)
    result = lab("evaluate", "--bundle", bundle, "--data", data, "--drop-ratio", 0.25, "--json", tmp_path / "x.json")
    remedy = "Install pointillist[lab], or run `make setup-dev` in a checkout."
    assert result.refusal() == f"error: foolbox is missing: this command needs it. {remedy}"


def test_pictures_are_drawn_from_all_classes_of_a_sorted_file(lab: Command, bundle: Path, tmp_path: Path) -> None:
    pictures = coloured_pictures(60)
    pictures.images[pictures.labels == 0] = (
        0  # the network gives these pictures another class than their label, the first one in the file
    )
    pictures.images[pictures.labels == 0, :, :, 2] = 9
    data, file = (
        save_pictures(tmp_path / "sorted.npz", pictures.take(pictures.labels.argsort())),
        tmp_path / "found.json",
    )
    common = ("--bundle", bundle, "--data", data, "--images", 15, "--json", file)

    lab("evaluate", "--drop-ratio", 0, *common).success()
    assert 0 < read_json(file)["accuracy"]["plain"] < 1
    lab("certify", "--patch", 2, "--windows", 2, "--fill", "grey", "--runs", tmp_path / "runs", *common).success()
    assert 0 < read_json(file)["clean"] < 1


@pytest.mark.parametrize("form", ["--runs x --results y", "--runs=x --results=y"])
def test_the_recorded_command_leaves_out_folders_of_this_machine(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/bin/pointillist", "lab", "stale", *form.split(), "--row", "a b", "--run"])
    assert shown_command() == "pointillist lab stale --row 'a b' --run"
