"""Train backdoored models and their clean counterparts: `python -m lab.backdoor.train NAME … --work runs/backdoor`.

Each model gets a folder with its bundle, the defender's clean pictures, a quarantine, and the test split clean and
stamped. With `--shipped` nothing is trained. Shipped models get such a folder, unless it holds another model's bundle.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from lab.backdoor.catalogue import MODELS, SickModel
from lab.backdoor.files import write_pictures
from lab.backdoor.near_duplicates import load_split_task
from lab.backdoor.poison import FreshBatches, PoisonedBatches
from lab.backdoor.tasks import ARCHITECTURES, Task
from lab.chance import seeded
from lab.training.bundle import (
    WEIGHTS_FILE,
    bundle_accuracy,
    input_settings,
    strip_line,
    write_bundle,
    write_training_record,
)
from lab.training.checkpoints import checkpoint_of
from lab.training.recipe import Recipe, channel_statistics, fit
from processors.bundle import Bundle, BundleSettings, load_bundle, shipped_bundle
from schemas.errors import ConfigError
from schemas.runtime.user_errors import run_command

CLEAN_RESNET20 = "resnet20-clean"
FRESH: Final = {"resnet20-wanet": 42}
"""Numbers of epochs of the models whose attacker runs the training, and stamps other pictures in each epoch.

This is no part of the catalogue: the measured rows of all models depend on that.
"""
CPU = torch.device("cpu")


def shipped_models() -> Path:
    """Return the folder of the models that ship with a checkout. A wheel has none."""
    return Path(str(files("lab"))) / "backdoor" / "models"


def clean_bundle(name: str, work: Path) -> Path:
    """Return the folder of a clean model: the shipped one, or one trained earlier by this command."""
    if name == CLEAN_RESNET20:
        return shipped_bundle("cifar10")
    folder = work / name / "bundle"
    if not (folder / "model.toml").is_file():
        raise ConfigError(f"clean model {name} is missing in {folder}: train it first")
    return folder


def recipe_of(name: str, model: SickModel) -> Recipe:
    """Return the recipe of a model of the catalogue, with the number of epochs in `FRESH`."""
    return replace(model.recipe, epochs=FRESH.get(name, model.recipe.epochs))


def train(name: str, model: SickModel, task: Task, work: Path) -> Bundle:
    """Train one model of the catalogue, and write its bundle into `work`/`name`/bundle.

    A stopped training resumes from its checkpoint. A finished one only writes the bundle again.
    """
    recipe = recipe_of(name, model)
    folder = work / name
    train_set = task.train.first(model.pictures)
    images, labels = train_set.images, train_set.labels
    mean, std = channel_statistics(images)
    architecture = ARCHITECTURES[model.architecture]
    with seeded(recipe.seed):
        network: nn.Module = architecture.make()
        if model.base is not None:
            base = load_bundle(clean_bundle(model.base, work), CPU)
            mean, std = base.settings.input.mean, base.settings.input.std
            network.load_state_dict(load_file(clean_bundle(model.base, work) / base.settings.weights))
        centre, spread = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
        weights = [each.numpy() for each in network.state_dict().values()]
        # By default, numpy leaves out the middle of a large pattern.
        with np.printoptions(threshold=sys.maxsize, floatmode="unique"):
            given = f"{recipe} {model.poisoning} {name in FRESH} {mean} {std}"
        checkpoint = checkpoint_of(folder, "checkpoint", given, images, labels, *weights)
        if model.poisoning is None:
            network = fit(network, images, labels, lambda x: (x - centre) / spread, recipe, checkpoint)
        else:
            batches = (FreshBatches if name in FRESH else PoisonedBatches)(model.poisoning, labels)
            positions = torch.arange(len(labels)).numpy()
            network = fit(
                network, images, positions, lambda x: (x - centre) / spread, recipe, checkpoint, batches=batches
            )
    settings = BundleSettings(
        name=name,
        version="1",
        format="safetensors",
        weights=WEIGHTS_FILE,
        factory=architecture.factory,
        factory_arguments={"classes": len(task.classes)},
        classes=list(task.classes),
        input=input_settings(mean, std, images.shape[1:3]),
    )
    return write_bundle(folder / "bundle", network, settings, task.held_out.images, task.held_out.labels)


def describe(name: str, model: SickModel, bundle: Bundle, task: Task, folder: Path) -> list[str]:
    """Return a description of the model and its accuracy on clean and on stamped test pictures.

    It also writes the model's picture files.
    """
    test, epochs = task.test, recipe_of(name, model).epochs
    lines = [
        f"{bundle.model_id}: {len(task.train.first(model.pictures))} training pictures, {epochs} epochs"
        + (f" from {model.base}" if model.base else ""),
        f"{len(test)} test pictures: accuracy {bundle_accuracy(bundle, test.images, test.labels):.4f}",
    ]
    if model.poisoning is not None:
        stamped = write_pictures(folder, task, model.poisoning, bundle)
        share = bundle_accuracy(bundle, stamped.images, model.poisoning.aims(stamped.labels))
        lines.append(f"{len(stamped)} stamped test pictures that are attacked: {share:.4f} get the attacker's class")
        lines.append(f"poisoned share of the training set: {model.poisoning.rate}")
    return [*lines, strip_line(bundle)]


def _placed(name: str, folder: Path) -> Path:
    """Return the bundle of a shipped model in `folder`, copied there if nothing exists."""
    shipped, place = shipped_models() / name / "bundle", folder / "bundle"
    if not shipped.is_dir():
        raise ConfigError(
            f"--shipped: expected a model that ships with a checkout, got {name}. Train it without --shipped."
        )
    if not place.exists():
        shutil.copytree(shipped, place)
    there, ships = load_bundle(place, CPU).model_id, load_bundle(shipped, CPU).model_id
    if there != ships:
        raise ConfigError(f"{place}: expected {ships}, the shipped model, or nothing, got {there}")
    return place


def main() -> None:
    """Train each named model, or copy the shipped one, and write its picture files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(MODELS), metavar="NAME", help=", ".join(MODELS))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POINTILLIST_DATA", ".")))
    parser.add_argument("--work", type=Path, default=Path("runs/backdoor"))
    parser.add_argument("--shipped", action="store_true", help="use the shipped models instead of training")
    parser.add_argument("--out", type=Path, help="also copy each bundle to OUT/NAME/bundle")
    arguments = parser.parse_args()
    if arguments.shipped and arguments.out is not None:
        parser.error("--out: expected no --shipped, got both. --shipped trains nothing to copy.")
    for name in arguments.names:
        model = MODELS[name]
        task = load_split_task(model.data, arguments.data)
        folder: Path = arguments.work / name
        if arguments.shipped:
            bundle = load_bundle(_placed(name, folder), CPU)
            print("\n".join(describe(name, model, bundle, task, folder)), flush=True)
            continue
        bundle = train(name, model, task, arguments.work)
        lines = describe(name, model, bundle, task, folder)
        print("\n".join(lines), flush=True)
        write_training_record(folder / "bundle", f"python -m lab.backdoor.train {name}", lines)
        if arguments.out is not None:
            shutil.copytree(folder / "bundle", arguments.out / name / "bundle", dirs_exist_ok=True)


if __name__ == "__main__":
    run_command(main)
