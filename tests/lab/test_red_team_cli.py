"""`pointillist lab red-team` as a user types it, in this process."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from infra.cli import main
from lab.attacks.bpda import identity
from lab.red_team import checklist, plan
from schemas.errors import UserError
from tests.lab.colour_judge import coloured, save, write_bundle

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def red_team(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    def run(*arguments: object) -> tuple[int, str, str]:
        words = ["pointillist", "lab", "red-team", "--runs", tmp_path / "runs", *arguments]
        monkeypatch.setattr(sys, "argv", list(map(str, words)))
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return save(tmp_path / "data.npz", coloured(8))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def onnx_bundle(bundle: Path) -> Path:
    shape: list[str | int | None] = ["n", 3, 16, 16]
    nodes = [
        helper.make_node("GlobalAveragePool", ["frames"], ["means"]),
        helper.make_node("Flatten", ["means"], ["logits"]),
    ]
    frames = helper.make_tensor_value_info("frames", TensorProto.FLOAT, shape)
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    model = helper.make_model(
        helper.make_graph(nodes, "colours", [frames], [logits]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, bundle / "weights.onnx")
    settings = (bundle / "model.toml").read_text().replace("safetensors", "onnx")
    settings = "\n".join(line for line in settings.splitlines() if not line.startswith("factory"))
    (bundle / "model.toml").write_text(settings)
    return bundle


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attack, hardly any effort."""
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


def test_every_point_gets_its_verdict_and_every_page_its_figures(
    red_team: Command, bundle: Path, data: Path, tmp_path: Path, little: None
) -> None:
    file, out = tmp_path / "found.json", tmp_path / "pages"
    out.mkdir()
    (out / "parity.md").write_text("# Our attacks beside others\n\nAs strong.\n")
    code, said, err = red_team(
        "--bundle", bundle, "--data", data, "--images", 7, "--eps", "4/255", "--json", file, "--out", out
    )
    assert code == 0, err
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
    assert "measured at" in err
    assert "10 size, intervals, command: failed: 7 pictures of at least 1000" in said

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

    # Another run of the same stands beside it, and has nothing left to do.
    code, _, err = red_team(
        "--bundle", bundle, "--data", data, "--images", 7, "--eps", "4/255", "--attacks", "eot-pgd", "--out", out
    )
    assert code == 0
    assert err.count("kept from before") == 2


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--defence", "wall"), "--defence: expected one of fleet, key-known, blind, stages, bare, bit-depth, jpeg"),
        (("--attacks", "storm"), "--attacks: expected some of gradients, eot-pgd"),
        (("--eps", 0), "--eps: expected above 0 and at most 1 (frames are in [0, 1]), got 0"),
        (("--eps", 1.5), "--eps: expected above 0 and at most 1 (frames are in [0, 1]), got 1.5"),
        (("--eps", "nan"), "--eps: expected a number or a fraction such as 8/255, got 'nan'"),
        (("--eps", "8/0"), "--eps: expected a number or a fraction such as 8/255, got '8/0'"),
        (("--budget", 0), "--budget: expected more than 0 minutes, got 0"),
        (("--drop-ratio", 0.9), "drop ratio: expected 0 to 0.875, got 0.9"),
        (("--bundle", "nowhere"), "no shipped bundle 'nowhere'"),
        (("--surrogate", "cifar10"), "--surrogate: expected a network of 3 classes, got one of 10"),
        (("--data", "nothing.npz"), "nothing.npz: expected a readable file"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    red_team: Command, bundle: Path, data: Path, options: tuple[object, ...], complaint: str
) -> None:
    assert complaint in refusal(red_team("--bundle", bundle, "--data", data, *options))


def refusal(ended: tuple[int, str, str]) -> str:
    code, _, err = ended
    assert code == UserError.exit_code, err
    (line,) = err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def test_pictures_and_labels_that_do_not_fit_are_refused_in_one_line(
    red_team: Command, bundle: Path, tmp_path: Path
) -> None:
    pictures = coloured(3)
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "range": ({"images": pictures.images / 100.0, "labels": pictures.labels}, "expected images (N, H, W, 1 or 3)"),
        "class": ({"images": pictures.images, "labels": pictures.labels + 3}, "expected labels from 0 to 2"),
        "count": ({"images": pictures.images, "labels": pictures.labels[:2]}, "expected labels (3,)"),
    }
    for name, (arrays, complaint) in wrong.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        assert complaint in refusal(red_team("--bundle", bundle, "--data", tmp_path / f"{name}.npz"))


def test_a_network_without_gradients_is_attacked_by_what_needs_none(
    red_team: Command, onnx_bundle: Path, data: Path, tmp_path: Path, little: None
) -> None:
    line = refusal(red_team("--bundle", onnx_bundle, "--data", data))
    assert "run --attacks noise,random-search,square,hop-skip-jump,verdicts (transfer too with --surrogate)" in line

    file, other = tmp_path / "found.json", write_bundle(tmp_path / "other")
    standard = ("--bundle", onnx_bundle, "--data", data, "--eps", 0.1, "--json", file)
    code, _, err = red_team(
        *standard, "--attacks", "noise,random-search,square,hop-skip-jump,transfer", "--surrogate", other
    )
    assert code == 0, err
    document = json.loads(file.read_text())
    assert list(document["per_attack"]) == ["noise", "random-search", "square", "transfer", "hop-skip-jump"]
    assert document["per_attack"]["transfer"] == 0
    assert document["checklist"]["2 whole defence, BPDA, EOT"] == "not run"
