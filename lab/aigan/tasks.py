"""The targets that AI-GAN is trained against, with their pictures, bounds and recipes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from lab.aigan.generator import Shape
from lab.aigan.training import Recipe
from lab.backdoor.tasks import load_task
from lab.data import LabelledPictures
from lab.networks.basic_cnn import BasicCnn
from lab.training.scene import CALIBRATION_SEED, TEST_SEED, TRAIN_SEED, scenes
from processors.bundle import load_bundle, shipped_bundle
from schemas.errors import ConfigError

_LAB: Final = Path(str(files("lab")))
TRAINING_SCENES: Final = 12_000
SCENES: Final = 1_000
"""Scenes for choosing a recipe, and as many for the final evaluation."""


@dataclass(frozen=True)
class Pictures:
    """Three splits: `train` for the generator, `valid` for choosing its recipe, `test` for one final evaluation."""

    train: LabelledPictures
    valid: LabelledPictures
    test: LabelledPictures


class Normalised(nn.Module):
    """A network that takes frames in [0, 1] and normalises them."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, frames: Tensor) -> Tensor:
        """Return logits (B, classes) of frames (B, C, H, W)."""
        logits: Tensor = self.network((frames - self.mean) / self.std)
        return logits


@dataclass(frozen=True)
class Task:
    """One target network, a bundle in `target`, and the settings of the attack on it."""

    name: str
    target: Callable[[], Path]
    pictures: Callable[[Path | None], Pictures]
    white_box: Recipe
    black_box: Recipe | None = None
    local: Callable[[], nn.Module] | None = None
    """Builds the local network of the black-box attacker, which contains nothing of the target."""
    continued: Recipe | None = None
    """The recipe of a training that starts with a shipped generator."""

    def judged(self, folder: Path | None, count: int) -> LabelledPictures:
        """Return the first `count` test pictures."""
        return judging_scenes(count) if self.pictures is scene_pictures else self.pictures(folder).test.first(count)

    def recipe(self, black_box: bool, *, continued: bool = False) -> Recipe:
        """Return the recipe of one setting. Raises ConfigError if the setting has none."""
        if continued:
            if black_box or self.continued is None:
                have = ", ".join(name for name, task in TASKS.items() if task.continued is not None)
                raise ConfigError(f"--start: expected a white-box training of {have}, got {self.name}")
            return self.continued
        found = self.black_box if black_box else self.white_box
        if found is None:
            raise ConfigError(f"--black-box: expected one of {', '.join(_with_black_box())}, got {self.name}")
        return found


def task_of(name: str) -> Task:
    """Return the task `name`. Raises ConfigError for an unknown one."""
    if name not in TASKS:
        raise ConfigError(f"--dataset: expected one of {', '.join(TASKS)}, got {name!r}")
    return TASKS[name]


def home_of(task: Task, black_box: bool) -> Path:
    """Return the folder in which its generator ships: with the bundles if the fleet may run it, else with the lab."""
    if black_box:
        return _LAB / "aigan" / "models" / f"{task.name}-black-box"
    if task.name == "mnist":
        return _LAB / "aigan" / "models" / task.name
    return Path(str(files("bundles"))) / "generators" / task.name


def shape_of(classes: int, pictures: LabelledPictures) -> Shape:
    """Return the shape of a generator for these pictures."""
    _, height, width, channels = pictures.images.shape
    return Shape(classes, channels, height, width)


def mnist_target() -> Path:
    """Return the folder of the MNIST network that ships with the lab."""
    return _LAB / "networks" / "mnist-b"


def vgg_of_ones_own() -> nn.Module:
    """Return a VGG that was trained on CIFAR-10's training pictures, independently of any target."""
    bundle = load_bundle(_LAB / "networks" / "vgg", torch.device("cpu"))
    assert isinstance(bundle.network, nn.Module)
    return Normalised(bundle.network, bundle.mean, bundle.std)


def _data_set(name: str) -> Callable[[Path | None], Pictures]:
    def read(folder: Path | None) -> Pictures:
        if folder is None:
            raise ConfigError(f"POINTILLIST_DATA is missing: set it to a folder with {name}.npz")
        task = load_task(name, folder)
        valid = LabelledPictures(f"{name} validation", task.held_out.images, task.held_out.labels)
        return Pictures(task.train, valid, task.test)

    return read


def scene_pictures(folder: Path | None = None) -> Pictures:
    """Return scenes of three simulators. No file is read."""
    return Pictures(*(
        LabelledPictures(f"scenes {name}", *scenes(seed, count))
        for name, seed, count in (
            ("train", TRAIN_SEED, TRAINING_SCENES), ("valid", CALIBRATION_SEED, SCENES), ("test", TEST_SEED, SCENES)
        )
    ))  # fmt: skip


def judging_scenes(count: int) -> LabelledPictures:
    """Return the first `count` scenes of the final evaluation."""
    return LabelledPictures("scenes test", *scenes(TEST_SEED, count))


def _with_black_box() -> list[str]:
    return [name for name, task in TASKS.items() if task.black_box is not None]


_MNIST: Final = Recipe(
    steps=24_000, eps=0.3, batch=32, cycle=4000, narrow=24, wide=48, discriminate_every=8, pretrain_steps=30
)
_CIFAR10: Final = Recipe(
    steps=24_000, eps=8 / 255, batch=32, cycle=4000, flip=True, wide=64, discriminate_every=8, pretrain_steps=50
)
_SCENE: Final = Recipe(steps=8000, eps=16 / 255, batch=32, cycle=4000, narrow=24, wide=64, pretrain_steps=50)


def _continued(recipe: Recipe, steps: int) -> Recipe:
    """Return the recipe of a longer training: the miss loss in one cycle, without the discriminator."""
    alone = replace(recipe, clean_weight=0, class_weight=0, blocks=recipe.blocks + 2, bf16=True)
    return replace(alone, steps=steps, cycle=steps, rate=1e-3, softness=3.0)


TASKS: Final = {
    task.name: task
    for task in (
        Task(
            "mnist",
            mnist_target,
            _data_set("mnist"),
            _MNIST,
            replace(_MNIST, steps=28_000, warmup_steps=200),
            BasicCnn,
            _continued(_MNIST, 12_000),
        ),
        Task(
            "cifar10",
            lambda: shipped_bundle("cifar10"),
            _data_set("cifar10"),
            _CIFAR10,
            replace(_CIFAR10, steps=16_000),
            vgg_of_ones_own,
            _continued(_CIFAR10, 36_000),
        ),
        Task("scene", lambda: shipped_bundle("scene-plain"), scene_pictures, _SCENE),
        Task(
            "scene-hardened", lambda: shipped_bundle("scene"), scene_pictures, replace(_SCENE, steps=2000, cycle=2000)
        ),
    )
}
