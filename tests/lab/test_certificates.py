"""Certified labels in the lab: the measurement, its command, and the training on filled windows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lab.certificates import measure as certificates
from lab.certificates.measure import FILLS, Fill, measure, patch_of
from lab.data import to_frames
from lab.experiments.certified.experiment import page
from lab.experiments.certified.measure import Row
from lab.hardening.stickers import hardest, window_masks
from processors.device.backends import choice_cache, contract
from processors.pipeline import Pipeline
from processors.stages.certify import Certificate, windows
from tests.lab.colour_classifier import save_pictures
from tests.lab.conftest import Command
from tests.lab.nonrobust_network import nonrobust_bundle, pictures, write_nonrobust_bundle


@pytest.mark.parametrize("fill", FILLS)
def test_a_picture_counts_as_certified_if_each_pair_gives_its_label(fill: Fill) -> None:
    pipeline, known = Pipeline(nonrobust_bundle()), pictures(3, 5)
    found = measure(pipeline, known, (2, 2), across=2, fill=fill)

    inside = windows(8, 8, (2, 2), 2)
    for number in range(len(known)):
        frame = to_frames(known.images[number : number + 1], torch.device("cpu"))
        classes = []
        for first in range(len(inside)):
            for second in range(first, len(inside)):
                kept = ~(inside[first] | inside[second])[None]
                with torch.inference_mode():
                    if fill == "restorer":
                        logits = pipeline.logits(frame, kept)
                    elif fill == "plate":
                        logits = Pipeline(pipeline.bundle, "plate").logits(frame, kept)
                    else:
                        logits = pipeline.bundle.logits(torch.where(kept, frame, 0.5))
                classes.append(int(logits.argmax()))
        assert found.robust[number] == (set(classes) == {int(known.labels[number])})
    assert found.passes.max() == 10
    assert found.robust.any()
    assert not (found.robust & ~found.clean).any()


def test_the_command_writes_the_figures_of_the_first_patch_and_the_curve(lab: Command, tmp_path: Path) -> None:
    known = pictures(8, 5)
    write_nonrobust_bundle(tmp_path / "bundle")
    save_pictures(tmp_path / "pictures.npz", known)
    file = tmp_path / "certified.json"

    lab(
        "certify", "--bundle", tmp_path / "bundle", "--data", tmp_path / "pictures.npz", "--json", file,
        "--patch", "2", "--patch", "1x8", "--windows", 2, "--images", 6, "--runs", tmp_path / "runs",
    ).success()  # fmt: skip

    document = json.loads(file.read_text())
    first, second = document["curve"]
    assert (first["patch"], second["patch"]) == ("2x2", "1x8")
    expected = measure(Pipeline(nonrobust_bundle()), known.first(6), (2, 2), across=2)
    assert document["certified"] == first["certified"] == expected.robust.mean()
    assert document["clean"] == expected.clean.mean()
    assert document["passes"] == expected.passes.mean()
    low, high = document["certified_interval"]
    assert low <= document["certified"] <= high


def test_a_stopped_run_resumes_after_its_last_part_and_ends_in_the_same_figures(
    lab: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = pictures(25, 5)
    write_nonrobust_bundle(tmp_path / "bundle")
    save_pictures(tmp_path / "pictures.npz", known)
    file, seen = tmp_path / "certified.json", list[int]()
    options = (
        "certify", "--bundle", tmp_path / "bundle", "--data", tmp_path / "pictures.npz", "--json", file,
        "--patch", "2", "--windows", 2, "--runs", tmp_path / "runs",
    )  # fmt: skip
    expected = measure(Pipeline(nonrobust_bundle()), known, (2, 2), across=2).figures()
    certified = certificates.certificate
    most = 13

    def counted(pipeline: Pipeline, frame: Tensor, *rest: Any) -> Certificate:
        if len(seen) == most:
            raise KeyboardInterrupt
        seen.append(1)
        return certified(pipeline, frame, *rest)

    monkeypatch.setattr(certificates, "certificate", counted)
    assert lab(*options).code != 0
    assert not file.exists()
    most = 1000
    lab(*options).success()

    assert len(seen) == 13 + 15
    document = json.loads(file.read_text())
    assert {name: document[name] for name in expected} == expected
    lab(*options, "--windows", 1).success()
    assert len(seen) == 13 + 15 + 25


def test_parts_of_other_libraries_or_of_another_backend_are_not_joined(
    lab: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, seen, version = pictures(4, 5), list[int](), choice_cache._version
    write_nonrobust_bundle(tmp_path / "bundle")
    save_pictures(tmp_path / "pictures.npz", known)
    certified = certificates.certificate

    def counted(pipeline: Pipeline, frame: Tensor, *rest: Any) -> Certificate:
        seen.append(1)
        return certified(pipeline, frame, *rest)

    def measured() -> int:
        seen.clear()
        lab(
            "certify", "--bundle", tmp_path / "bundle", "--data", tmp_path / "pictures.npz", "--json",
            tmp_path / "certified.json", "--patch", "2", "--windows", 2, "--runs", tmp_path / "runs",
        ).success()  # fmt: skip
        return len(seen)

    monkeypatch.setattr(certificates, "certificate", counted)
    assert [measured(), measured()] == [4, 0]
    for library in ("torch", "onnxruntime", "openvino"):
        monkeypatch.setattr(
            choice_cache, "_version", lambda package, other=library: "0" if package == other else version(package)
        )
        assert measured() == 4, library
    monkeypatch.setattr(choice_cache, "_version", version)
    # The torch version's parts were replaced by those of the others.
    assert [measured(), measured()] == [4, 0]
    monkeypatch.setattr(contract, "runtime_of", lambda network: "another backend")
    assert measured() == 4


def test_a_patch_is_a_side_or_two() -> None:
    assert (patch_of("5"), patch_of("24x40")) == ((5, 5), (24, 40))


def test_training_masks_lack_two_windows_and_the_dropped_pixels() -> None:
    kept = torch.rand(64, 1, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.2
    masks = window_masks(kept, 3, 4, torch.Generator().manual_seed(1))

    inside = windows(16, 16, (3, 3), 4)[:, 0]
    assert not bool((masks & ~kept).any())
    for mask, before in zip(masks, kept, strict=True):
        removed = before & ~mask
        whole = [bool((mask[0] & window).sum() == 0) for window in inside]
        assert 1 <= sum(whole) <= 4
        covered = inside[torch.tensor(whole)].any(0)
        assert bool((removed[0] <= covered).all())


def test_the_mask_with_the_largest_loss_is_chosen_for_each_frame() -> None:
    def logits(frames: Tensor, mask: Tensor) -> Tensor:
        kept = mask.flatten(1).sum(1).float()
        return torch.stack((kept, torch.zeros_like(kept)), 1)

    few, many = torch.zeros(2, 1, 4, 4, dtype=torch.bool), torch.ones(2, 1, 4, 4, dtype=torch.bool)
    chosen = hardest(logits, torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]), [few, many])
    assert chosen.flatten(1).sum(1).tolist() == [0, 16]


def test_a_network_is_trained_on_filled_windows_and_certified_before_and_after(lab: Command, tmp_path: Path) -> None:
    known = pictures(96, 5)
    write_nonrobust_bundle(tmp_path / "bundle")
    save_pictures(tmp_path / "pictures.npz", known)
    options = (
        "harden", "--bundle", tmp_path / "bundle", "--data", tmp_path / "pictures.npz", "--out", tmp_path / "out",
        "--json", tmp_path / "figures.json", "--stickers", 2, "--windows", 2, "--steps", 2, "--epochs", 1,
        "--batch", 16, "--held-out", 32, "--measured", 8,
    )  # fmt: skip

    result = lab(*options).success()

    assert "8 held-out frames, double masking, after: clean" in result.err
    assert "certified against stickers of 2×2" in result.err
    assert "under each of 24" in result.err
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert 0 <= figures["robust_after"] <= figures["clean_after"] <= 1


def test_the_page_shows_rows_with_intervals_and_published_figures_with_sources() -> None:
    row = Row("cifar10", "cifar10", 5, 5, "restorer", 6, 1000, 0.4, 0.37, 0.43, 0.9, 0.88, 0.92, 355.5, 60)
    text = "\n".join(page([row]))
    assert "0.400 [0.370, 0.430]" in text
    assert "Levine and Feizi, NeurIPS 2020" in text


def test_bounds_of_certificates_depend_on_the_network_its_pictures_and_the_size_of_the_patch() -> None:
    shares = ("restorer", 8, 100, 0.92, 0.85, 0.96, 1.0, 0.96, 1.0, 1919.0, 64.0)
    rows = [Row("scene-stickers", "scenes-640x480", side, side, *shares) for side in (78, 40)]
    bounded, other = [line for line in "\n".join(page(rows)).splitlines() if line.startswith("| scene-stickers")]
    assert "| ≥ .90 | ≥ .97 | must |" in bounded
    assert "| – | – |  |" in other


def test_a_patch_that_is_too_large_is_rejected_before_any_measurement(lab: Command, tmp_path: Path) -> None:
    known = pictures(12, 5)
    write_nonrobust_bundle(tmp_path / "bundle")
    save_pictures(tmp_path / "pictures.npz", known)
    line = lab(
        "certify", "--bundle", tmp_path / "bundle", "--data", tmp_path / "pictures.npz", "--json",
        tmp_path / "certified.json", "--patch", "2", "--patch", "999", "--windows", 2, "--runs", tmp_path / "runs",
    ).refusal()  # fmt: skip
    assert "patch: expected at most" in line
    assert not list((tmp_path / "runs").rglob("*.npz"))
