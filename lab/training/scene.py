"""Train the network of the simulated fleet: `python -m lab.training.scene --out bundles/scene`.

Training, calibration and test scenes come from simulators with different seeds. Part of the training frames are wide or
grey, and most lose pixels and are rebuilt, as the pipeline does with them; the test says what that costs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lab.training.bundle import input_settings, write_bundle, write_training_record
from lab.training.recipe import Images, Labels, Recipe, channel_statistics, fit
from processors.bundle import Bundle, BundleSettings
from processors.networks.resnet import ResNet
from processors.stages.drop import drop
from processors.stages.reconstruct import reconstruct
from processors.stages.resample import resize
from producers.scene.signs import CLASSES
from producers.scene.simulator import LUMA, SCENE_FRAMES, SceneSimulator

SIDE = 32
TRAIN_SEED, CALIBRATION_SEED, TEST_SEED = 1, 2, 3
NETWORK = {"classes": len(CLASSES), "depth_per_stage": 1, "width": 16}
SQUARE, WIDE = (SIDE, SIDE), (54, 96)
PER_CAMERA = 10


def scenes(
    seed: int, count: int, size: tuple[int, int] = SQUARE, first_camera: int = 0
) -> tuple[Images, Labels]:
    """`count` scenes, each another place: frames (count, 32, 32, 3) uint8 and classes (count,).

    Frames of another `size` (height, width) are rendered in it and then resized as the bundle does.
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
    """Four fifths square scenes, one fifth wide ones, and every tenth of all grey."""
    wide = count // 5
    parts = [
        scenes(TRAIN_SEED, count - wide),
        scenes(TRAIN_SEED, wide, WIDE, first_camera=count),
    ]
    images = np.concatenate([part[0] for part in parts])
    images[::10] = np.rint(images[::10] @ LUMA)[..., None].astype(np.uint8)
    return images, np.concatenate([part[1] for part in parts])


def random_kept(frames: Tensor, dropped_per_block: int, generator: torch.Generator) -> Tensor:
    """A mask (B, 1, H, W), True where a pixel is kept: `dropped_per_block` of the 64 in each 8×8 block are not.

    Frame sides must be multiples of 8.
    """
    batch, _, height, width = frames.shape
    rank = torch.rand(batch, height // 8, width // 8, 64, generator=generator).argsort(-1).argsort(-1)
    blocks = (rank >= dropped_per_block).view(batch, height // 8, width // 8, 8, 8)
    return blocks.permute(0, 1, 3, 2, 4).reshape(batch, 1, height, width).to(frames.device)


def rebuilt(frames: Tensor, dropped_per_block: int, generator: torch.Generator) -> Tensor:
    """`frames` after a random pixel drop and the pipeline's default reconstruction."""
    kept = random_kept(frames, dropped_per_block, generator)
    return reconstruct(drop(frames, kept), kept)


def augment(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Drop 0 to 40 of 64 pixels and rebuild, in three batches of four."""
    if torch.rand((), generator=generator) < 0.25:
        return frames
    return rebuilt(frames, int(torch.randint(41, (), generator=generator)), generator)


def _frames(images: Images) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255


@torch.inference_mode()
def bundle_accuracy(bundle: Bundle, images: Images, labels: Labels, dropped_per_block: int = 0) -> float:
    """Share of (N, 32, 32, C) uint8 scenes that the bundle names rightly, after drop and reconstruction if any."""
    generator = torch.Generator().manual_seed(0)
    correct = 0
    for start in range(0, len(images), 500):
        frames = _frames(images[start : start + 500])
        if dropped_per_block:
            frames = rebuilt(frames, dropped_per_block, generator)
        verdicts = bundle.logits(bundle.prepare(frames)).argmax(1).numpy()
        correct += int((verdicts == labels[start : start + 500]).sum())
    return correct / len(images)


def main() -> None:
    """Train, write the bundle, evaluate it as loaded from its folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--scenes", type=int, default=40_000, help="training scenes")
    parser.add_argument("--test", type=int, default=6_000, help="held-out scenes")
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()

    recipe = Recipe(epochs=arguments.epochs, flip=False, pad=2, peak_rate=0.1)
    images, labels = training_scenes(arguments.scenes)
    mean, std = channel_statistics(images)
    centre, spread = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    torch.manual_seed(recipe.seed)
    network = fit(ResNet(**NETWORK), images, labels, lambda x: (x - centre) / spread, recipe, augment=augment)

    settings = BundleSettings(
        name="scene",
        version="1",
        format="safetensors",
        weights="weights.safetensors",
        factory="processors.networks.resnet:ResNet",
        factory_arguments=NETWORK,
        classes=list(CLASSES),
        input=input_settings(mean, std),
    )
    bundle = write_bundle(arguments.out, network, settings, *scenes(CALIBRATION_SEED, 2_100))
    assert bundle.settings.strip is not None
    square, truth = scenes(TEST_SEED, arguments.test)
    wide, wide_truth = scenes(TEST_SEED, arguments.test // 3, WIDE, first_camera=arguments.test)
    grey = np.rint(square @ LUMA)[..., None].astype(np.uint8)
    lines = [
        f"{bundle.model_id}: {len(images)} training scenes, {recipe.epochs} epochs",
        f"held-out scenes                        {bundle_accuracy(bundle, square, truth):.4f} of {len(square)}",
        f"the same, 25 % dropped and rebuilt     {bundle_accuracy(bundle, square, truth, 16):.4f}",
        f"the same, 50 % dropped and rebuilt     {bundle_accuracy(bundle, square, truth, 32):.4f}",
        f"the same, grey                         {bundle_accuracy(bundle, grey, truth):.4f}",
        f"held-out wide scenes, 96x54, resized   {bundle_accuracy(bundle, wide, wide_truth):.4f} of {len(wide)}",
        f"STRIP threshold                        {bundle.settings.strip.threshold_bits} bits "
        f"for a false rejection rate of {bundle.settings.strip.frr}",
    ]
    print("\n".join(lines))
    write_training_record(arguments.out, "lab.training.scene", lines)


if __name__ == "__main__":
    main()
