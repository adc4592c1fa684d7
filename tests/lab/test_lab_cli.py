"""`pointillist lab evaluate` and `pointillist lab psnr` as a user types them, in this process."""

from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from infra.cli import main
from processors.device.backends import engines as engines_module
from processors.device.backends.choose import Choice, Wish
from processors.stages.learned import Restorers
from schemas.errors import UserError
from tests.lab.colour_judge import coloured, network, save, write_bundle

Command = Callable[..., "Ended"]


class Ended:
    """How a command ended and what it said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def refusal(self) -> str:
        """The one line of a refused command."""
        assert self.code == UserError.exit_code, self.err
        (line,) = self.err.strip().splitlines()
        assert line.startswith("error: ")
        return line


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["pointillist", "lab", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return save(tmp_path / "data.npz", coloured(12))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def written(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(file.read_text())
    return document


def test_evaluate_writes_the_documented_keys(lab: Command, bundle: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "results" / "clean.json"
    ended = lab("evaluate", "--bundle", bundle, "--data", data, "--drop-ratio", 0.25, "--json", file, "--images", 9)
    assert ended.code == 0, ended.err
    found = written(file)
    assert found["images"] == found["correct_undefended"] == 9
    assert set(found["accuracy"]) == {"plain", "reconstructed", "denoised"}
    assert found["restored"] is None
    assert found["relative_accuracy"] == pytest.approx(found["accuracy"]["denoised"])
    assert found["psnr_db"] > 20
    assert found["frames_per_second"] > 0
    low, high = found["intervals"]["relative_accuracy"]
    assert low <= found["relative_accuracy"] <= high
    assert found["settings"]["mode"] == "default"
    assert "relative_accuracy" in ended.out


def test_evaluate_attacks_the_bare_network(lab: Command, bundle: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "attacked.json"
    ended = lab(
        "evaluate", "--bundle", bundle, "--data", data, "--drop-ratio", 0.25, "--json", file, "--mode", "paper",
        "--attack", "fgsm", "--eps", 0.02, "--untargeted",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    found = written(file)
    assert found["attacked_undefended"] == found["accuracy"]["plain"] == 0
    assert found["broken_by_the_attack"] == 12
    assert found["restored"] == found["relative_accuracy"]
    # .02 is 5.1 levels, which 8 bits make 5.
    assert found["linf"] == pytest.approx(5 / 255, rel=1e-5)
    assert found["settings"] | {"bundle": ""} == {
        "bundle": "", "data": str(data), "drop": 0.25, "mode": "paper", "masks": "spread", "seed": 0,
        "attack": "fgsm", "eps": 0.02, "targeted": False, "device": "cpu", "threads": torch.get_num_threads(),
    }  # fmt: skip


def test_a_torchscript_network_is_attacked_like_any_other(
    lab: Command, bundle: Path, data: Path, tmp_path: Path
) -> None:
    module = network()
    module.load_state_dict({"2.weight": 60 * torch.eye(3), "2.bias": torch.zeros(3)})
    with pytest.warns(DeprecationWarning, match=r"torch\.jit"):
        torch.jit.script(module.eval()).save(str(bundle / "weights.pt"))  # type: ignore[no-untyped-call]  # torch does not annotate it
    settings = (bundle / "model.toml").read_text().replace("safetensors", "torchscript", 1)
    settings = settings.replace("weights.safetensors", "weights.pt")
    settings = "\n".join(line for line in settings.splitlines() if not line.startswith("factory"))
    (bundle / "model.toml").write_text(settings)
    file = tmp_path / "attacked.json"
    ended = lab(
        "evaluate", "--bundle", bundle, "--data", data, "--drop-ratio", 0.25, "--json", file, "--attack", "fgsm",
        "--eps", 0.02, "--untargeted",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert written(file)["attacked_undefended"] == 0


@pytest.fixture
def onnx_bundle(bundle: Path) -> Path:
    shape: list[str | int | None] = ["n", 3, 16, 16]
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["frames"], ["means"]),
            helper.make_node("Flatten", ["means"], ["logits"]),
        ],
        "colours",
        [helper.make_tensor_value_info("frames", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, bundle / "weights.onnx")
    settings = (bundle / "model.toml").read_text().replace("safetensors", "onnx")
    settings = "\n".join(line for line in settings.splitlines() if not line.startswith("factory"))
    (bundle / "model.toml").write_text(settings)
    return bundle


def test_an_onnx_network_is_evaluated_clean(lab: Command, onnx_bundle: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "clean.json"
    ended = lab("evaluate", "--bundle", onnx_bundle, "--data", data, "--drop-ratio", 0.25, "--json", file)
    assert ended.code == 0, ended.err
    assert written(file)["correct_undefended"] == 12


def test_an_onnx_network_gives_no_gradients_to_attack_with(
    lab: Command, onnx_bundle: Path, data: Path, tmp_path: Path
) -> None:
    options = ("--drop-ratio", 0.25, "--json", tmp_path / "x.json", "--attack", "pgd")
    assert "gradients" in lab("evaluate", "--bundle", onnx_bundle, "--data", data, *options).refusal()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--drop-ratio", 0.9), "drop ratio: expected 0 to 0.875, got 0.9"),
        (("--mode", "best"), "--mode: expected default or paper, got 'best'"),
        (("--masks", "odd"), "--masks: expected spread or uniform, got 'odd'"),
        (("--attack", "storm"), "attack: expected one of fgsm"),
        (("--attack", "pgd", "--eps", -1), "eps: expected a positive number, got -1.0"),
        (("--eps", 0.1), "expected --attack NAME with --eps or --untargeted"),
        (("--untargeted",), "expected --attack NAME"),
        (("--attack", "deepfool"), "untargeted"),
        (("--device", "abacus"), "--device: expected auto or cpu or cuda"),
        (("--bundle", "nowhere"), "no shipped bundle 'nowhere'"),
        (("--data", "nothing.npz"), "nothing.npz: expected a readable file"),
    ],
)
def test_evaluate_refuses_wrong_options_in_one_line(
    lab: Command, bundle: Path, data: Path, tmp_path: Path, options: tuple[object, ...], complaint: str
) -> None:
    file = tmp_path / "out.json"
    standard = ("--bundle", bundle, "--data", data, "--drop-ratio", 0.25, "--json", file)
    assert complaint in lab("evaluate", *standard, *options).refusal()
    assert not file.exists()


def test_results_that_cannot_be_written_are_refused_before_the_work(
    lab: Command, bundle: Path, data: Path, tmp_path: Path
) -> None:
    for place in (tmp_path, data / "below" / "a" / "file.json"):
        ended = lab("evaluate", "--bundle", bundle, "--data", data, "--drop-ratio", 0.25, "--json", place)
        assert "--json: expected a file to write" in ended.refusal()


def test_psnr_writes_means_rows_and_what_it_skipped(lab: Command, tmp_path: Path) -> None:
    folder, file = tmp_path / "pictures", tmp_path / "psnr.json"
    folder.mkdir()
    ramp = np.add.outer(np.arange(24), np.arange(40)).astype(np.uint8) * 3
    Image.fromarray(ramp).save(folder / "ramp.png")
    Image.fromarray(np.dstack([ramp, ramp, 255 - ramp])).save(folder / "ramp.jpg")
    (folder / "notes.txt").write_text("not a picture")
    ended = lab("psnr", "--images", folder, "--drop-ratio", 0.25, "--json", file)
    assert ended.code == 0
    assert "skipped notes.txt" in ended.err
    found = written(file)
    assert (found["images"], found["skipped"]) == (2, 1)
    for name in ("psnr_db", "paper_psnr_db", "biharmonic_psnr_db"):
        assert found[name] == pytest.approx(np.mean([row[name] for row in found["pictures"]]))
    for name in ("seconds", "biharmonic_seconds"):
        assert found[name] == pytest.approx(sum(row[name] for row in found["pictures"]))


def test_psnr_runs_the_restorer_as_a_processor_does_unless_torch_is_asked_for(
    lab: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = engines_module.restorers

    def noted(wish: Wish, threads: int) -> tuple[Choice, Restorers]:
        asked.append(wish.backend)
        return real(Wish("torch"), threads)

    monkeypatch.setattr(engines_module, "restorers", noted)
    picture = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    Image.fromarray(picture).save(tmp_path / "noise.png")
    for extra, backend in (((), "auto"), (("--backend", "torch"), "torch")):
        file = tmp_path.parent / f"{backend}.json"
        assert lab("psnr", "--images", tmp_path, "--drop-ratio", 0.25, "--json", file, *extra).code == 0
        assert written(file)["settings"]["backend"] == backend
    assert asked == ["auto", "torch"]
    refused = lab(
        "psnr", "--images", tmp_path, "--drop-ratio", 0.25, "--json", tmp_path / "x.json", "--backend", "abacus"
    )
    assert refused.code == 2
    assert "abacus" in refused.err


def test_psnr_without_a_readable_picture_is_refused(lab: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a picture")
    ended = lab("psnr", "--images", tmp_path, "--drop-ratio", 0.25, "--json", tmp_path / "x.json")
    assert ended.code == 2
    assert ended.err.strip().splitlines()[-1] == "error: pictures: expected at least one readable picture, got none"


def test_a_missing_library_names_the_extra(
    lab: Command, bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name == "lab.restoration.evaluate":
            raise ModuleNotFoundError("No module named 'foolbox'", name="foolbox")
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    ended = lab("evaluate", "--bundle", bundle, "--data", data, "--drop-ratio", 0.25, "--json", tmp_path / "x.json")
    assert ended.refusal() == "error: this command needs foolbox: install pointillist[lab]"
