"""Train the CIFAR-10 network that ships: `python -m lab.training.cifar10 --out bundles/cifar10`.

The last 1,000 training pictures are held out: STRIP's overlays and threshold come from them. The test split is read
once, after the last epoch.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lab.chance import seeded
from lab.training.bundle import (
    WEIGHTS_FILE,
    bundle_accuracy,
    degraded,
    input_settings,
    strip_line,
    write_bundle,
    write_training_record,
)
from lab.training.checkpoints import checkpoint_of
from lab.training.recipe import Images, Labels, Recipe, channel_statistics, fit
from processors.bundle import BundleSettings
from processors.networks.resnet import ResNet
from schemas.runtime.user_errors import run_command

HELD_OUT = 1000
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def train(
    images: Images, labels: Labels, mean: list[float], std: list[float], recipe: Recipe, work: Path, width: int = 16
) -> nn.Module:
    """Return a ResNet-20 trained on (N, 32, 32, 3) uint8 pictures. `work` keeps a checkpoint to resume from.

    A training of another recipe, width or pictures has another checkpoint.
    """
    centre, spread = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    checkpoint = checkpoint_of(work, "checkpoint", f"{recipe} {width}", images, labels)
    with seeded(recipe.seed):
        network = fit(ResNet(10, width=width), images, labels, lambda x: (x - centre) / spread, recipe, checkpoint)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, work / WEIGHTS_FILE)
    return network


def main() -> None:
    """Train or load weights, write the bundle, and evaluate it on the official test set."""
    parser = argparse.ArgumentParser(description=__doc__)
    default_data = Path(os.environ.get("POINTILLIST_DATA", ".")) / "cifar10.npz"
    parser.add_argument("--data", type=Path, default=default_data)
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--work", type=Path, default=Path("runs/cifar10"), help="folder of the checkpoint")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    parser.add_argument("--weights", type=Path, help="use these weights (safetensors) instead of training")
    arguments = parser.parse_args()

    data = np.load(arguments.data)
    train_x, train_y = data["train_x"], data["train_y"].astype(np.int64)
    images, labels = train_x[:-HELD_OUT], train_y[:-HELD_OUT]
    mean, std = channel_statistics(images)
    if arguments.weights is None:
        recipe = Recipe(epochs=arguments.epochs, bfloat16=arguments.bf16)
        network = train(images, labels, mean, std, recipe, arguments.work, arguments.width)
    else:
        network = ResNet(10, width=arguments.width).eval()
        network.load_state_dict(load_file(arguments.weights))

    settings = BundleSettings(
        name="cifar10",
        version="1",
        format="safetensors",
        weights=WEIGHTS_FILE,
        factory="processors.networks.resnet:ResNet",
        factory_arguments={"classes": 10, "width": arguments.width},
        classes=list(CLASSES),
        input=input_settings(mean, std),
    )
    bundle = write_bundle(arguments.out, network, settings, train_x[-HELD_OUT:], train_y[-HELD_OUT:])
    test_x, test_y = data["test_x"], data["test_y"].astype(np.int64)
    lines = [
        f"{bundle.model_id}: {len(images)} training pictures, {arguments.epochs} epochs",
        f"{len(test_x)} test pictures: accuracy {bundle_accuracy(bundle, test_x, test_y):.4f}",
        f"25 % dropped and rebuilt: {bundle_accuracy(bundle, test_x, test_y, degraded(bundle, 0.25)):.4f}",
        strip_line(bundle),
    ]
    print("\n".join(lines))
    command = f"python -m lab.training.cifar10 --out {arguments.out} --epochs {arguments.epochs}"
    wide = f" --width {arguments.width}" if arguments.width != parser.get_default("width") else ""
    write_training_record(arguments.out, command + wide + (" --bf16" if arguments.bf16 else ""), lines)


if __name__ == "__main__":
    run_command(main)
