"""Shipped generators: ONNX with the outputs of torch, and the success of the fleet's generator."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lab.aigan.continuing import adopt, shipped_weights
from lab.aigan.generator import Generator, Shape
from lab.aigan.measure import attack, bare, frames_of, pgd, sharpened, targets_for, verdicts
from lab.aigan.shipping import MAX_BYTES, MODEL, SETTINGS, Attacker, GeneratorSettings, ship, shipped_generator
from lab.aigan.tasks import TASKS, judging_scenes
from lab.chance import seeded
from lab.training.bundle import to_toml
from processors.bundle import load_bundle, shipped_bundle
from schemas.errors import ConfigError
from tests.lab.conftest import Command

SHAPE = Shape(classes=3, channels=1, height=8, width=12)
SETTINGS_OF_TINY = GeneratorSettings("tiny", "none@1+0", "white-box", ["a", "b", "c"], 1, 8, 12, 0.25, "a command")


@dataclass
class Shipped:
    """A generator, its pictures (400, 1, 8, 12) and their targets, and the folder that it is shipped in."""

    generator: Generator
    pictures: Tensor
    targets: Tensor
    folder: Path


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    """Return a generator whose norms have other parameters than a new one, and the statistics of its pictures."""
    with seeded(0):
        generator = Generator(SHAPE, narrow=4, wide=6, blocks=1)
        pictures, targets = torch.rand(400, 1, 8, 12), torch.arange(400) % 3
        torch.nn.init.normal_(generator.out.weight, std=0.3)
        torch.nn.init.normal_(generator.templates.weight, std=0.3)
        norms = [each for each in generator.modules() if isinstance(each, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
            if norm.affine:
                torch.nn.init.uniform_(norm.weight, 0.5, 2)
                torch.nn.init.normal_(norm.bias)
        with torch.no_grad():
            generator.train()(pictures, targets)
    folder = tmp_path_factory.mktemp("shipped")
    ship(generator.eval(), SETTINGS_OF_TINY, folder)
    return Shipped(generator, pictures, targets, folder)


def test_onnx_returns_the_outputs_of_torch_for_any_number_of_pictures(shipped: Shipped) -> None:
    attacker = Attacker(shipped.folder)
    assert attacker.settings == SETTINGS_OF_TINY
    model = (shipped.folder / MODEL).read_bytes()
    assert b".py" not in model, "the model names source files of the machine that made it"
    for count in (1, 5):
        pictures, targets = shipped.pictures[:count], shipped.targets[:count]
        with torch.no_grad():
            expected = shipped.generator(pictures, targets).numpy()
        np.testing.assert_allclose(attacker.direction(pictures.numpy(), targets.numpy()), expected, atol=1e-5)


def test_a_longer_training_starts_with_the_function_of_the_shipped_generator(shipped: Shipped, tmp_path: Path) -> None:
    pictures, targets = shipped.pictures, shipped.targets
    with torch.no_grad():
        expected = shipped.generator(pictures, targets)
    weights = shipped_weights(shipped.folder)
    with seeded(1):
        longer = Generator(SHAPE, narrow=4, wide=6, blocks=2)
    adopt(longer, weights, pictures)
    with torch.no_grad():
        torch.testing.assert_close(longer.eval()(pictures, targets), expected, atol=0.02, rtol=0)
        # In training, batch norms use the statistics of the batch. These must not change the directions.
        torch.testing.assert_close(longer.train()(pictures, targets), expected, atol=0.05, rtol=0)
        assert expected.std() > 0.2
    with pytest.raises(ConfigError, match=r"--start: encoder\.stem\.weight: expected the shape"):
        adopt(Generator(SHAPE, narrow=2, wide=6, blocks=1), weights, pictures)
    (tmp_path / MODEL).write_bytes(b"no model")
    with pytest.raises(ConfigError, match="expected an ONNX generator"):
        shipped_weights(tmp_path)


def test_a_generator_of_five_mebibytes_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.aigan.shipping.export", lambda generator, file: file.write_bytes(bytes(MAX_BYTES)))
    with pytest.raises(ConfigError, match=f"expected fewer than {MAX_BYTES} bytes"):
        ship(Generator(SHAPE, narrow=2, wide=2, blocks=1), SETTINGS_OF_TINY, tmp_path)
    assert not (tmp_path / MODEL).exists()


def test_the_fleets_generator_reaches_its_targets_within_its_bound() -> None:
    attacker = Attacker(shipped_generator("scene"))
    bundle = load_bundle(shipped_bundle("scene-plain"), torch.device("cpu"))
    assert attacker.settings.bundle == bundle.model_id
    pictures = judging_scenes(200)
    frames = frames_of(pictures)
    targets = targets_for(pictures.labels, 12, seed=0)
    attacked = attack(attacker, frames, targets)
    classes = verdicts(bare(bundle), attacked.frames)
    assert attacked.l_inf <= attacker.settings.eps
    assert (classes == targets).mean() >= 0.6
    assert (classes == pictures.labels).mean() <= 0.3
    assert (verdicts(bare(bundle), frames) == pictures.labels).mean() >= 0.99


def test_a_sharpened_direction_stays_within_the_bound_and_reaches_it_in_more_values() -> None:
    attacker = Attacker(shipped_generator("scene"))
    made = attacker.settings
    frames = np.random.default_rng(0).uniform(0.2, 0.8, (6, made.channels, made.height, made.width)).astype(np.float32)
    targets = np.arange(6) % len(made.classes)
    np.testing.assert_allclose(sharpened(attacker, frames, targets, 1.0), attacker(frames, targets), atol=1e-6)
    plain, sharp = (np.abs(sharpened(attacker, frames, targets, gain) - frames) for gain in (1.0, 3.0))
    assert sharp.max() <= made.eps
    assert (sharp > 0.99 * made.eps).mean() > (plain > 0.99 * made.eps).mean()


def test_pgd_reaches_the_same_targets_within_the_same_bound() -> None:
    bundle = load_bundle(shipped_bundle("scene-plain"), torch.device("cpu"))
    pictures = judging_scenes(8)
    targets = targets_for(pictures.labels, 12, seed=0)
    made = pgd(bare(bundle), frames_of(pictures), pictures.labels, targets, 16 / 255, seed=0, steps=10)
    assert made.l_inf <= 16 / 255
    assert (verdicts(bare(bundle), made.frames) == targets).mean() > 0.5


@pytest.mark.parametrize("name", list(TASKS))
def test_every_shipped_generator_has_its_settings_and_its_training_record(name: str) -> None:
    folder = shipped_generator(name)
    settings = Attacker(folder).settings
    assert settings.name == name
    assert (folder / MODEL).stat().st_size < MAX_BYTES
    assert settings.command in (folder / "training.md").read_text(encoding="utf-8")


def test_the_attack_command_writes_its_documented_figures(lab: Command, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    lab("aigan", "attack", "--dataset", "scene", "--images", 4, "--json", file).success()
    figures = json.loads(file.read_text())
    assert {"targeted_success", "seconds", "pgd40_seconds", "l_inf"} <= figures.keys()
    assert 0 < figures["l_inf"] <= figures["eps"]
    assert figures["images"] == 4
    assert figures["pgd40_seconds"] > figures["seconds"] > 0


def test_a_generator_for_another_picture_size_is_rejected(lab: Command, tmp_path: Path) -> None:
    shutil.copy(shipped_generator("scene") / MODEL, tmp_path)
    (tmp_path / SETTINGS).write_text(to_toml(asdict(SETTINGS_OF_TINY)), encoding="utf-8")
    options = ("--dataset", "scene", "--generator", tmp_path, "--json", tmp_path / "figures.json")
    assert (
        "generator tiny: expected pictures of (8, 12, 1), got (32, 32, 3)" in lab("aigan", "attack", *options).refusal()
    )


def test_the_option_start_is_rejected_for_a_training_without_a_recipe_for_it(lab: Command, tmp_path: Path) -> None:
    error = lab("aigan", "train", "--dataset", "scene", "--start", tmp_path).refusal()
    assert "--start: expected a white-box training of mnist, cifar10, got scene" in error
