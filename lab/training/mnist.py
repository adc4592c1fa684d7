"""Train the target network of the attacks on MNIST: `python -m lab.training.mnist --out lab/networks/mnist-b`.

The last 1,000 training pictures are held out. The test split is read once.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch

from lab.chance import seeded
from lab.networks.mnist import model_b
from lab.training.bundle import (
    WEIGHTS_FILE,
    bundle_accuracy,
    input_settings,
    save_network,
    to_toml,
    write_training_record,
)
from lab.training.cifar10 import HELD_OUT
from lab.training.recipe import Recipe, channel_statistics, fit
from processors.bundle import BundleSettings, load_bundle
from schemas.runtime.user_errors import run_command


def main() -> None:
    """Train, write the bundle, and evaluate it as loaded from its folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POINTILLIST_DATA", ".")))
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    with np.load(arguments.data / "mnist.npz") as data:
        images, labels, test, truth = (data[name] for name in ("train_x", "train_y", "test_x", "test_y"))
    images, labels, test = images[:-HELD_OUT, ..., None], labels[:-HELD_OUT].astype(np.int64), test[..., None]
    mean, std = channel_statistics(images)
    # Pictures are not augmented. At Carlini and Wagner's rate, .01, PGD-40 reaches its target on 91 % of held-out
    # pictures at ε = .3. Here it is 99 %, at the same accuracy. A network that blocks all attacks is unsuitable for
    # comparing them.
    recipe = Recipe(
        epochs=arguments.epochs,
        flip=False,
        pad=0,
        weight_decay=0.0,
        peak_rate=0.05,
        average_decay=0.0,
        warmup_share=0.02,
    )
    with seeded(recipe.seed):
        network = fit(model_b(), images, labels, lambda x: (x - mean[0]) / std[0], recipe)
    folder = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    settings = BundleSettings(
        name="mnist-b",
        version="1",
        format="safetensors",
        weights=WEIGHTS_FILE,
        factory="lab.networks.mnist:model_b",
        factory_arguments={"classes": 10},
        classes=list("0123456789"),
        input=input_settings(mean, std, (28, 28)),
    )
    save_network(network, folder / WEIGHTS_FILE, "safetensors")
    (folder / "model.toml").write_text(to_toml(settings.model_dump(exclude_none=True)), encoding="utf-8")
    bundle = load_bundle(folder, torch.device("cpu"))
    lines = [
        f"{bundle.model_id}: {len(images)} training pictures, {recipe.epochs} epochs",
        f"{len(test)} test pictures: accuracy {bundle_accuracy(bundle, test, truth):.4f}",
    ]
    print("\n".join(lines))
    command = f"python -m lab.training.mnist --out {folder} --epochs {recipe.epochs}"
    write_training_record(folder, command, lines)


if __name__ == "__main__":
    run_command(main)
