"""Train a network for simulated scenes of 128 × 128 pixels: `python -m lab.training.scene128`.

It serves experiments on defences of pictures larger than CIFAR-10's. Scenes for training, validation and test come from
simulators with different seeds. Training uses neither drops nor attacks.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import nn

from lab.chance import seeded
from lab.networks.strided import Strided
from lab.training.bundle import (
    WEIGHTS_FILE,
    bundle_accuracy,
    input_settings,
    save_network,
    to_toml,
    write_training_record,
)
from lab.training.recipe import Images, Labels, Recipe, channel_statistics, fit
from processors.bundle import BundleSettings, load_bundle
from producers.scene.signs import CLASSES
from producers.scene.simulator import SCENE_FRAMES, SceneSimulator
from schemas.runtime.user_errors import run_command

FOLDER: Final = Path(__file__).parents[1] / "networks" / "scene128"
SIDE: Final = 128
TRAIN_SEED, VALIDATION_SEED, TEST_SEED = 11, 12, 13
PER_CAMERA: Final = 10


def large_scenes(seed: int, count: int) -> tuple[Images, Labels]:
    """Return `count` scenes, each of another place: frames (count, 128, 128, 3) uint8 and classes (count,)."""
    frames, labels = [], []
    for number in range(count):
        camera, place = divmod(number, PER_CAMERA)
        if not place:
            simulator = SceneSimulator(seed, camera, (SIDE, SIDE))
        frame, label = simulator.render(place * SCENE_FRAMES + number % SCENE_FRAMES)
        frames.append(frame)
        labels.append(label)
    return np.stack(frames), np.array(labels, np.int64)


def main() -> None:
    """Train, write the bundle, and evaluate it on scenes of another simulator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="the bundle's folder")
    parser.add_argument("--scenes", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--test", type=int, default=300)
    arguments = parser.parse_args()
    images, labels = large_scenes(TRAIN_SEED, arguments.scenes)
    mean, std = channel_statistics(images)
    centre, spread = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    recipe = Recipe(epochs=arguments.epochs, batch=64, flip=False, pad=4, peak_rate=0.1, average_decay=0.97)
    with seeded(recipe.seed):
        network: nn.Module = fit(Strided(len(CLASSES)), images, labels, lambda x: (x - centre) / spread, recipe)
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_network(network, arguments.out / WEIGHTS_FILE, "safetensors")
    settings = BundleSettings(
        name="scene128",
        version="1",
        format="safetensors",
        weights=WEIGHTS_FILE,
        factory="lab.networks.strided:Strided",
        factory_arguments={"classes": len(CLASSES)},
        classes=list(CLASSES),
        input=input_settings(mean, std, (SIDE, SIDE)),
    )
    table = settings.model_dump(exclude_none=True, exclude={"preprocess"})
    (arguments.out / "model.toml").write_text(to_toml(table), encoding="utf-8")
    bundle = load_bundle(arguments.out, torch.device("cpu"))
    accuracy = bundle_accuracy(bundle, *large_scenes(TEST_SEED, arguments.test))
    lines = [
        f"{bundle.model_id}: {len(images)} training scenes, {recipe.epochs} epochs",
        f"{arguments.test} held-out scenes: accuracy {accuracy:.4f}",
    ]
    print("\n".join(lines))
    command = f"python -m lab.training.scene128 --scenes {arguments.scenes} --epochs {arguments.epochs}"
    write_training_record(arguments.out, command, lines)


if __name__ == "__main__":
    run_command(main)
