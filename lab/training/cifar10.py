"""Train the CIFAR-10 network that ships: `python -m lab.training.cifar10 --out FOLDER`.

The last 1,000 training pictures take no part in the training: STRIP's overlays and threshold come from them.
The test split is read once, after the last epoch.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from lab.training.recipe import Recipe, accuracy, channel_statistics, fit
from processors.networks.resnet import resnet20

HELD_OUT = 1000


def main() -> None:
    """Train, evaluate on the official test set, and save `weights.safetensors` and `training.txt`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("POINTILLIST_DATA", ".")) / "cifar10.npz"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = np.load(arguments.data)
    images, labels = data["train_x"][:-HELD_OUT], data["train_y"][:-HELD_OUT].astype(np.int64)
    mean, std = channel_statistics(images)
    centre, spread = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]

    def normalise(frames: Tensor) -> Tensor:
        return (frames - centre.to(frames)) / spread.to(frames)

    recipe = Recipe(epochs=arguments.epochs)
    torch.manual_seed(recipe.seed)
    network = fit(resnet20(10), images, labels, normalise, recipe, arguments.out / "checkpoint.pt")
    save_file(
        {k: v.contiguous() for k, v in network.state_dict().items()}, arguments.out / "weights.safetensors"
    )
    score = accuracy(network, data["test_x"], data["test_y"].astype(np.int64), normalise)
    line = f"test accuracy {score:.4f} on {len(data['test_x'])} pictures; mean {mean}, std {std}; {recipe}"
    print(line)
    (arguments.out / "training.txt").write_text(line + "\n")


if __name__ == "__main__":
    main()
