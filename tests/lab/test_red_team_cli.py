"""The command `pointillist lab red-team`, in this process."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.attacks.bpda import identity
from lab.red_team import checklist, plan
from tests.lab.colour_classifier import coloured_pictures, save_pictures, write_bundle
from tests.lab.conftest import Command, CommandResult


@pytest.fixture
def red_team(lab: Command, tmp_path: Path) -> Command:
    def run(*arguments: object) -> CommandResult:
        return lab("red-team", "--runs", tmp_path / "runs", *arguments)

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return save_pictures(tmp_path / "data.npz", coloured_pictures(8))


@pytest.fixture
def little_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the steps and queries of every attack to a few."""
    for name, value in (
        ("STEPS", 3), ("SAMPLES", 1), ("CURVE_STEPS", 3), ("CURVE_SAMPLES", 1), ("EOT_STEPS", 1), ("SHORT_STEPS", 2),
        ("QUERIES", 20), ("RANDOM_QUERIES", 5), ("RANDOM_TRIES", 5), ("VERDICTS", 6), ("WALK_STEPS", 1),
        ("WALK_QUERIES", 4),
    ):  # fmt: skip
        monkeypatch.setattr(plan, name, value)
    monkeypatch.setattr(plan, "EOT_SIZES", (1, 2))
    monkeypatch.setattr(plan, "STEP_COUNTS", (2, 6))
    monkeypatch.setattr(plan, "STRENGTHS", (0.5, 1.0))
    for module in ("run", "plan"):
        monkeypatch.setattr(f"lab.red_team.{module}.RESUBMISSIONS", 2)
    monkeypatch.setattr("lab.red_team.defences.learn_surrogate", lambda forward, pictures, **settings: identity)
    monkeypatch.setattr("lab.red_team.attack.auto_attack", lambda attacked, frames, labels, **settings: frames)


def test_every_point_has_a_verdict_and_every_page_its_figures(
    red_team: Command, bundle: Path, data: Path, tmp_path: Path, little_effort: None
) -> None:
    file, out = tmp_path / "found.json", tmp_path / "pages"
    out.mkdir()
    (out / "parity.md").write_text("# Our attacks beside others\n\nAs strong.\n")
    done = red_team(
        "--bundle", bundle, "--data", data, "--images", 7, "--eps", "4/255", "--json", file, "--out", out
    ).success()
    document: dict[str, Any] = json.loads(file.read_text())
    assert set(document) >= {"clean_accuracy", "worst_case_accuracy", "per_attack", "masking_signs", "checklist"}
    assert list(document["checklist"]) == list(checklist.POINTS)
    assert set(document["checklist"].values()) <= {"passed", "failed"}
    assert set(document["per_attack"]) >= {
        "eot-pgd", "targeted", "auto-attack", "square", "hop-skip-jump", "transfer", "bpda/surrogate", "eot/2",
        "noise", "steps/6",
    }  # fmt: skip
    assert "fixed/all" not in document["per_attack"]
    assert document["worst_case_accuracy"] <= min(document["per_attack"].values()) <= document["clean_accuracy"]
    assert document["worst_case_of_judged"]["images"] == 7
    assert document["settings"]["submissions"] == 2
    assert document["eps"] == pytest.approx(4 / 255)
    assert "measured at" in done.err
    assert "10 size, intervals, command: failed: 7 pictures of at least 1000" in done.out

    folder = out / "bundle-fleet-r0.25-0.01569"
    with (folder / "attacks.csv").open(newline="") as stream:
        rows = {row["name"]: row for row in csv.DictReader(stream)}
    assert float(rows["eot-pgd"]["accuracy"]) == pytest.approx(document["per_attack"]["eot-pgd"], abs=1e-5)
    assert float(rows["without/bare, clean"]["accuracy"]) == 1
    assert (folder / "curves.png").stat().st_size > 5000
    front = (out / "README.md").read_text()
    assert "[colours@1" in front
    assert "(bundle-fleet-r0.25-0.01569/README.md)" in front
    assert "**failed**: 10 size" in front
    assert "[Our attacks beside others](parity.md)" in front
    details = (folder / "README.md").read_text()
    assert "not the key" in details.replace("\n", " ")
    assert "| hop-skip-jump | 4/255 |" in details

    # A second run on the same pictures reuses all stored batches.
    done = red_team(
        "--bundle", bundle, "--data", data, "--images", 7, "--eps", "4/255", "--attacks", "eot-pgd", "--out", out
    ).success()
    assert done.err.count("kept from before") == 2


def test_invalid_pictures_and_labels_are_rejected_in_one_line(red_team: Command, bundle: Path, tmp_path: Path) -> None:
    pictures = coloured_pictures(3)
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "range": ({"images": pictures.images / 100.0, "labels": pictures.labels}, "expected images (N, H, W, 1 or 3)"),
        "class": ({"images": pictures.images, "labels": pictures.labels + 3}, "expected labels from 0 to 2"),
        "count": ({"images": pictures.images, "labels": pictures.labels[:2]}, "expected labels (3,)"),
    }
    for name, (arrays, complaint) in wrong.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        assert complaint in red_team("--bundle", bundle, "--data", tmp_path / f"{name}.npz").refusal()


def test_a_network_without_gradients_is_attacked_by_attacks_without_gradients(
    red_team: Command, onnx_bundle: Path, data: Path, tmp_path: Path, little_effort: None
) -> None:
    line = red_team("--bundle", onnx_bundle, "--data", data).refusal()
    assert "run --attacks noise,random-search,square,hop-skip-jump,verdicts (transfer too with --surrogate)" in line

    file, other = tmp_path / "found.json", write_bundle(tmp_path / "other")
    standard = ("--bundle", onnx_bundle, "--data", data, "--eps", 0.1, "--json", file)
    red_team(
        *standard, "--attacks", "noise,random-search,square,hop-skip-jump,transfer", "--surrogate", other
    ).success()
    document = json.loads(file.read_text())
    assert list(document["per_attack"]) == ["noise", "random-search", "square", "transfer", "hop-skip-jump"]
    assert document["per_attack"]["transfer"] == 0
    assert document["checklist"]["2 whole defence, BPDA, EOT"] == "not run"


def test_attacks_by_labels_alone_run_on_a_sorted_file(
    red_team: Command, bundle: Path, tmp_path: Path, little_effort: None
) -> None:
    pictures, file = coloured_pictures(90), tmp_path / "found.json"
    data = save_pictures(tmp_path / "sorted.npz", pictures.take(pictures.labels.argsort()))
    attacks = "eot-pgd,square,hop-skip-jump"
    red_team(
        "--bundle", bundle, "--data", data, "--images", 12, "--eps", 0.1, "--defence", "bare", "--attacks", attacks,
        "--json", file,
    ).success()  # fmt: skip
    changed = {each["name"]: each["linf"] for each in json.loads(file.read_text())["attacks"]}
    assert changed["hop-skip-jump"] > 0
