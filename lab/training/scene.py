"""Train the plain network of the simulated fleet: `python -m lab.training.scene --out bundles/scene-plain`.

Training, calibration and test scenes come from simulators with different seeds. Some training frames are wide or grey.
Most lose pixels and are rebuilt, as in the pipeline. The test shows the cost of this.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lab.chance import seeded
from lab.masks import random_masks
from lab.training.bundle import (
    WEIGHTS_FILE,
    bundle_accuracy,
    degraded,
    input_settings,
    strip_line,
    write_bundle,
    write_training_record,
)
from lab.training.recipe import Images, Labels, Recipe, channel_statistics, fit
from processors.bundle import BundleSettings
from processors.networks.resnet import ResNet
from processors.stages.denoise import denoise
from processors.stages.drop import drop
from processors.stages.reconstruct import reconstruct
from processors.stages.resample import resize
from producers.scene.signs import CLASSES
from producers.scene.simulator import LUMA, SCENE_FRAMES, SceneSimulator
from schemas.runtime.user_errors import run_command

SIDE = 32
TRAIN_SEED, CALIBRATION_SEED, TEST_SEED = 1, 2, 3
SQUARE, WIDE = (SIDE, SIDE), (54, 96)
PER_CAMERA = 10


def scenes(seed: int, count: int, size: tuple[int, int] = SQUARE, first_camera: int = 0) -> tuple[Images, Labels]:
    """Return `count` scenes, each of another place: frames (count, 32, 32, 3) uint8 and classes (count,).

    Frames of another `size` (height, width) are rendered at that size and then resized as the bundle does.
    """
    frames, labels = [], []
    for number in range(count):
        if number % PER_CAMERA == 0:
            simulator = SceneSimulator(seed, first_camera + number // PER_CAMERA, size)
        frame, label = simulator.render(number % PER_CAMERA * SCENE_FRAMES + number % SCENE_FRAMES)
        frames.append(frame)
        labels.append(label)
    stacked = np.stack(frames)
    if size != SQUARE:
        small = resize(_frames(stacked), SIDE, SIDE)
        stacked = np.ascontiguousarray((small * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return stacked, np.array(labels, np.int64)


def training_scenes(count: int) -> tuple[Images, Labels]:
    """Return four fifths square scenes and one fifth wide ones; every tenth of all is grey."""
    wide = count // 5
    parts = [
        scenes(TRAIN_SEED, count - wide),
        scenes(TRAIN_SEED, wide, WIDE, first_camera=count),
    ]
    images = np.concatenate([part[0] for part in parts])
    images[::10] = np.rint(images[::10] @ LUMA)[..., None].astype(np.uint8)
    return images, np.concatenate([part[1] for part in parts])


def rebuilt(frames: Tensor, drop_ratio: float, generator: torch.Generator) -> Tensor:
    """Return `frames` after a random pixel drop and the pipeline's default reconstruction."""
    batch, _, height, width = frames.shape
    kept = random_masks(batch, height, width, drop_ratio, generator).to(frames.device)
    # The plate is used as in the shipped bundle's training: the learned default may change, this network need not.
    return reconstruct(drop(frames, kept), kept, "plate")


def augment(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Drop up to 60 % of the pixels and rebuild, in four batches of five. Denoise every second batch."""
    ratio, chance = torch.rand(2, generator=generator).tolist()
    if ratio > 0.2:
        frames = rebuilt(frames, 0.75 * (ratio - 0.2), generator)
    return denoise(frames) if chance < 0.5 else frames


def _frames(images: Images) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255


def main() -> None:
    """Train, write the bundle, and evaluate it as loaded from its folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--scenes", type=int, default=20_000, help="training scenes")
    parser.add_argument("--test", type=int, default=6_000, help="held-out scenes")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--width", type=int, default=16, help="channels of the network's first stage")
    parser.add_argument("--weights", type=Path, help="use these weights (safetensors) instead of training")
    arguments = parser.parse_args()

    shape = {"classes": len(CLASSES), "depth_per_stage": 1, "width": arguments.width}
    recipe = Recipe(epochs=arguments.epochs, flip=False, pad=2, peak_rate=0.1)
    images, labels = training_scenes(arguments.scenes)
    mean, std = channel_statistics(images)
    centre, spread = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    with seeded(recipe.seed):
        network: nn.Module = ResNet(**shape).eval()
        if arguments.weights is None:
            network = fit(network, images, labels, lambda x: (x - centre) / spread, recipe, augment=augment)
        else:
            network.load_state_dict(load_file(arguments.weights))

    settings = BundleSettings(
        name="scene",
        version="1",
        format="safetensors",
        weights=WEIGHTS_FILE,
        factory="processors.networks.resnet:ResNet",
        factory_arguments=shape,
        classes=list(CLASSES),
        input=input_settings(mean, std),
    )
    bundle = write_bundle(arguments.out, network, settings, *scenes(CALIBRATION_SEED, 2_100))
    square, truth = scenes(TEST_SEED, arguments.test)
    wide, wide_truth = scenes(TEST_SEED, arguments.test // 3, WIDE, first_camera=arguments.test)
    grey = np.rint(square @ LUMA)[..., None].astype(np.uint8)
    lines = [
        f"{bundle.model_id}: {len(images)} training scenes, {recipe.epochs} epochs",
        f"{len(square)} held-out scenes: accuracy {bundle_accuracy(bundle, square, truth):.4f}",
        f"25 % dropped and rebuilt: {bundle_accuracy(bundle, square, truth, degraded(bundle, 0.25)):.4f}",
        f"50 % dropped and rebuilt: {bundle_accuracy(bundle, square, truth, degraded(bundle, 0.5)):.4f}",
        f"grey: {bundle_accuracy(bundle, grey, truth):.4f}",
        f"{len(wide)} held-out scenes of 96x54, resized: {bundle_accuracy(bundle, wide, wide_truth):.4f}",
        strip_line(bundle),
    ]
    print("\n".join(lines))
    options = (
        f"--scenes {arguments.scenes} --epochs {arguments.epochs} --test {arguments.test} --width {arguments.width}"
    )
    write_training_record(arguments.out, f"python -m lab.training.scene --out {arguments.out} {options}", lines)


if __name__ == "__main__":
    run_command(main)
