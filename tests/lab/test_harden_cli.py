"""The command `pointillist lab harden`, in this process and in two processes like those of `torchrun`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from infra.local.ports import free_port
from lab.data import LabelledPictures
from lab.hardening.train import Training
from processors.bundle import load_bundle
from schemas.errors import ConfigError
from tests.lab.colour_classifier import save_pictures
from tests.lab.conftest import Command, CommandResult
from tests.lab.nonrobust_network import EPS, pictures, write_nonrobust_bundle

KEYS = {"clean_before", "clean_after", "robust_before", "robust_after", "seconds"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_nonrobust_bundle(tmp_path / "bundle")
    for name, count in (("pictures", 96), ("many", 288)):
        found = pictures(count, seed=4)
        save_pictures(tmp_path / f"{name}.npz", found)
    return tmp_path


def command_of(folder: Path, **changed: object) -> list[str]:
    options: dict[str, object] = {
        "bundle": folder / "bundle", "data": folder / "pictures.npz", "out": folder / "out",
        "json": folder / "figures.json", "epochs": 2, "batch": 16, "held-out": 32, "measured": 8, "eps": EPS,
    }  # fmt: skip
    pairs = (options | {name.replace("_", "-"): value for name, value in changed.items()}).items()
    return ["harden", *(word for name, value in pairs for word in (f"--{name}", str(value)))]


@pytest.fixture
def harden(folder: Path, lab: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setattr("lab.hardening.measure.STEPS", 2)
    monkeypatch.setattr("lab.hardening.measure.SAMPLES", 1)

    def run(**changed: object) -> CommandResult:
        return lab(*command_of(folder, **changed))

    return run


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "weights.safetensors")


def test_harden_writes_a_complete_bundle_with_its_figures_and_its_record(folder: Path, harden: Command) -> None:
    err = harden(data=folder / "many.npz", held_out=224, epochs=1).success().err
    figures = json.loads((folder / "figures.json").read_text())
    assert set(figures) >= KEYS
    hardened = load_bundle(folder / "out", torch.device("cpu"))
    assert figures["bundle"] == hardened.model_id
    assert hardened.model_id.startswith("nonrobust@1-hardened+")
    assert hardened.settings.strip is not None
    assert "STRIP is recalibrated" in err
    record = (folder / "out" / "training.md").read_text()
    assert f"$ pointillist lab harden --bundle {folder / 'bundle'}" in record
    assert hardened.model_id in record
    assert "step 2 of 4" in err


@pytest.mark.parametrize("is_sorted", [True, False])
def test_held_out_pictures_have_every_class_even_if_the_file_is_sorted(
    folder: Path, harden: Command, monkeypatch: pytest.MonkeyPatch, is_sorted: bool
) -> None:
    found = pictures(96, seed=4)
    order = np.argsort(found.labels, kind="stable") if is_sorted else np.arange(96)
    np.savez(folder / "ordered.npz", images=found.images[order], labels=found.labels[order])
    held_out_sets: list[LabelledPictures] = []

    def record(bundle: object, batches: object, held_out: LabelledPictures, *_: object, **__: object) -> None:
        held_out_sets.append(held_out)
        raise ConfigError("enough")

    monkeypatch.setattr("lab.hardening.run.harden", record)
    err = harden(data=folder / "ordered.npz").err
    (held_out,) = held_out_sets
    assert len(held_out) == 32
    assert set(held_out.labels) == {0, 1}
    assert ("the last pictures do not have the classes of the others" in err) is is_sorted
    assert is_sorted or np.array_equal(held_out.images, found.images[-32:])


def test_a_stopped_run_resumes_and_ends_in_the_same_weights(
    folder: Path, harden: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    harden().success()
    whole = weights(folder / "out")
    shutil.rmtree(folder / "out")
    learn, steps = Training._learn, []

    def stopped(self: Training) -> None:
        steps.append(self.step)
        if len(steps) == 8:
            raise KeyboardInterrupt
        learn(self)

    monkeypatch.setattr(Training, "_learn", stopped)
    assert harden().code != 0
    assert not (folder / "out" / "model.toml").exists()
    assert "resumed after step 6 of 8" in harden().success().err
    assert steps[8:] == [6, 7]
    again = weights(folder / "out")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_attacks_work_through_a_stage_without_a_gradient(folder: Path, harden: Command) -> None:
    with (folder / "bundle" / "model.toml").open("a") as table:
        table.write('\n[[preprocess]]\nstage = "bit-depth"\nbits = 6\n')
    harden(epochs=1).success()
    figures = json.loads((folder / "figures.json").read_text())
    # Without gradients the attack would be noise, which the network withstands.
    assert figures["robust_before"] < figures["clean_before"] / 2


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_scripted_network_is_hardened_and_stays_scripted(folder: Path, harden: Command) -> None:
    write_nonrobust_bundle(folder / "scripted", "torchscript")
    harden(bundle=folder / "scripted", epochs=1).success()
    before, after = (load_bundle(folder / name, torch.device("cpu")) for name in ("scripted", "out"))
    assert after.settings.format == "torchscript"
    assert before.model_id.rpartition("+")[2] != after.model_id.rpartition("+")[2]


PROGRAM_WITH_THREAD_NAMES = """
from pathlib import Path
from infra.cli import main
from lab.hardening import measure
measure.STEPS, measure.SAMPLES = 2, 1
try:
    main()
finally:
    print(*((each / "comm").read_text() for each in Path("/proc/self/task").iterdir()))
"""
"""`pointillist` with a short measurement, followed by the names of the threads that remain at its end."""


def test_two_processes_train_the_same_weights_as_one(
    folder: Path, harden: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    harden(shards=2, epochs=1).success()
    alone = weights(folder / "out")
    shutil.rmtree(folder / "out")
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-c", PROGRAM_WITH_THREAD_NAMES, "lab", *command_of(folder, epochs=1)]
    for name, value in (place | {"RANK": "0", "LOCAL_RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    other = os.environ | {"RANK": "1", "LOCAL_RANK": "1"}
    with subprocess.Popen(command, env=other, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as second:
        try:
            first = harden(epochs=1)
            remaining_threads, other_errors = second.communicate(timeout=60)
        finally:
            second.kill()
    assert (first.code, second.returncode) == (0, 0), first.err + other_errors
    together = weights(folder / "out")
    assert all(torch.equal(alone[name], together[name]) for name in alone)
    # An interpreter that exits while a thread of gloo runs sometimes aborts.
    assert remaining_threads
    assert "gloo" not in remaining_threads


def test_a_network_without_gradients_is_rejected(folder: Path, harden: Command) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["x"], ["m"]), helper.make_node("Flatten", ["m"], ["y"])],
        "three",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "bundle" / "weights.onnx")
    table = (folder / "bundle" / "model.toml").read_text().replace("weights.safetensors", "weights.onnx")
    lines = [line for line in table.replace('"safetensors"', '"onnx"').splitlines() if "factory" not in line]
    text = "\n".join(lines).replace('["dark", "bright"]', '["dark", "bright", "blue"]')
    (folder / "bundle" / "model.toml").write_text(text)
    assert "expected a trainable network" in harden().refusal()


def test_other_bundles_are_not_overwritten(folder: Path, harden: Command) -> None:
    assert "another folder" in harden(out=folder / "bundle").refusal()
    shutil.copytree(folder / "bundle", folder / "other")
    assert "another bundle" in harden(out=folder / "other").refusal()
