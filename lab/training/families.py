"""Train one surrogate or judge on CIFAR-10: `python -m lab.training.families vgg --epochs 10`.

The bundle is written to `lab/networks/<family>`. The last 1,000 training pictures are held out. The test split is read
once.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from lab.chance import seeded
from lab.networks.families import FAMILIES
from lab.training.bundle import WEIGHTS_FILE, bundle_accuracy, input_settings, to_toml, write_training_record
from lab.training.checkpoints import checkpoint_of
from lab.training.cifar10 import CLASSES, HELD_OUT
from lab.training.recipe import Recipe, channel_statistics, fit
from processors.bundle import BundleSettings, load_bundle
from schemas.runtime.user_errors import run_command

NETWORKS = Path(__file__).parents[1] / "networks"


def main() -> None:
    """Train, write the bundle, and evaluate it on the official test set."""
    parser = argparse.ArgumentParser(description=__doc__)
    default_data = Path(os.environ.get("POINTILLIST_DATA", ".")) / "cifar10.npz"
    parser.add_argument("family", choices=sorted(FAMILIES))
    parser.add_argument("--data", type=Path, default=default_data)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--work", type=Path, default=Path("runs/families"), help="folder of the checkpoint")
    parser.add_argument("--weights", type=Path, help="use these weights (safetensors) instead of training")
    arguments = parser.parse_args()

    data = np.load(arguments.data)
    images, labels = data["train_x"][:-HELD_OUT], data["train_y"][:-HELD_OUT].astype(np.int64)
    mean, std = channel_statistics(images)
    recipe = Recipe(epochs=arguments.epochs, average_decay=0.995)
    with seeded(recipe.seed):
        network = FAMILIES[arguments.family](len(CLASSES))
    if arguments.weights is None:
        centre, spread = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
        checkpoint = checkpoint_of(arguments.work, arguments.family, f"{recipe}", images, labels)
        network = fit(network, images, labels, lambda x: (x - centre) / spread, recipe, checkpoint)
    else:
        network.load_state_dict(load_file(arguments.weights))

    folder = NETWORKS / arguments.family
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / WEIGHTS_FILE)
    (folder / WEIGHTS_FILE).chmod(0o644)
    settings = BundleSettings(
        name=f"cifar10-{arguments.family}",
        version="1",
        format="safetensors",
        weights=WEIGHTS_FILE,
        factory=f"lab.networks.families:{arguments.family}",
        factory_arguments={"classes": len(CLASSES)},
        classes=list(CLASSES),
        input=input_settings(mean, std),
    )
    (folder / "model.toml").write_text(to_toml(settings.model_dump(exclude_none=True)), encoding="utf-8")
    bundle = load_bundle(folder, torch.device("cpu"))
    test_x, test_y = data["test_x"], data["test_y"].astype(np.int64)
    lines = [
        f"{bundle.model_id}: {len(images)} training pictures, {arguments.epochs} epochs",
        f"{len(test_x)} test pictures: accuracy {bundle_accuracy(bundle, test_x, test_y):.4f}",
    ]
    print("\n".join(lines))
    write_training_record(
        folder, f"python -m lab.training.families {arguments.family} --epochs {arguments.epochs}", lines
    )


if __name__ == "__main__":
    run_command(main)
