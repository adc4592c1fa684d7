"""Train the networks of QuSecNets: `python -m lab.experiments.qusecnets.training mnist-cq2 … --work runs/qusecnets`.

Constant quantisation spreads the thresholds evenly with z = 50. Trainable quantisation starts from them with z = 5 and
learns them by the loss of the network behind. The paper keeps z fixed; here it is learned as well, by its logarithm.
Further departures: one threshold for all pixels, cross-entropy instead of the squared error of equation 2, and shifted
pictures. The networks `…-printed` have only the last of them.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.backdoor.tasks import Task, load_task
from lab.cache import digest
from lab.chance import seeded
from lab.experiments.qusecnets.adversarial import ATTACKED, train_in_box
from lab.experiments.qusecnets.network import CONSTANT_STEEPNESS, NETWORKS, Quantisation, QuantisedNetwork
from lab.provenance import made_by
from lab.training.bundle import (
    WEIGHTS_FILE,
    bundle_accuracy,
    input_settings,
    save_network,
    to_toml,
    write_training_record,
)
from lab.training.recipe import Images, Labels, Recipe, channel_statistics, fit
from processors.bundle import Bundle, load_bundle
from processors.stages.preprocess.quantisation import save_parameters
from schemas.runtime.user_errors import run_command

_MODULE: Final = "lab.experiments.qusecnets.training"
SHIPPED: Final = Path(__file__).parents[2] / "networks" / "qusecnets"
PARAMETERS_FILE: Final = "quantisation.safetensors"
RECIPES: Final = {
    "mnist": Recipe(epochs=4, batch=128, peak_rate=0.05, pad=2, flip=False, average_decay=0.99),
    "cifar10": Recipe(epochs=6, batch=128, peak_rate=0.05, pad=4, flip=True, average_decay=0.995),
}
LOWER_RATE: Final = 0.02
"""Learning rate of trained layers on CIFAR-10: at the others' rate the training diverges."""


def train(wanted: Quantisation, images: Images, labels: Labels, recipe: Recipe, checkpoint: Path) -> QuantisedNetwork:
    """Train on (N, H, W, C) uint8 pictures. An interrupted run resumes from the last epoch, in `checkpoint`."""
    mean, std = channel_statistics(images)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    channels, side = images.shape[3], images.shape[1]
    with seeded(recipe.seed):
        _, make, arguments = wanted.behind(channels, side)
        network = QuantisedNetwork(wanted, make(**arguments), mean, std, side)
        cost = squared_error if wanted.as_printed else F.cross_entropy
        trained = fit(network, images, labels, lambda frames: frames, recipe, checkpoint, cost=cost)
    assert isinstance(trained, QuantisedNetwork)
    return trained


def squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over pictures of the squared error of their probabilities (equation 2)."""
    wanted = F.one_hot(labels, logits.shape[1])
    return (logits.softmax(1) - wanted).square().sum(1).mean()


def recipe(wanted: Quantisation) -> Recipe:
    """Return the training recipe."""
    usual = RECIPES[wanted.data]
    return replace(usual, peak_rate=LOWER_RATE) if wanted.trainable and wanted.data == "cifar10" else usual


def write(folder: Path, wanted: Quantisation, network: QuantisedNetwork, classes: tuple[str, ...], side: int) -> Bundle:
    """Write a bundle whose `quantisation` stage is the trained layer, and return it as loaded from there."""
    folder.mkdir(parents=True, exist_ok=True)
    save_network(network.network, folder / WEIGHTS_FILE, "safetensors")
    tables: list[dict[str, object]] = []
    if wanted.trainable:
        save_parameters(folder / PARAMETERS_FILE, *network.layer)
        tables = [{"stage": "quantisation", "parameters": PARAMETERS_FILE}]
    elif wanted.levels is not None:
        tables = [{"stage": "quantisation", "levels": wanted.levels, "steepness": CONSTANT_STEEPNESS}]
    mean, std = network.mean.flatten().tolist(), network.std.flatten().tolist()
    factory, _, arguments = wanted.behind(len(mean), side)
    settings = {
        "name": wanted.name,
        "version": "1",
        "format": "safetensors",
        "weights": WEIGHTS_FILE,
        "factory": factory,
        "classes": list(classes),
        "factory_arguments": arguments,
        "input": input_settings([round(m, 4) for m in mean], [round(s, 4) for s in std], (side, side)).model_dump(),
        "preprocess": tables,
    }
    (folder / "model.toml").write_text(to_toml({key: value for key, value in settings.items() if value}), "utf-8")
    return load_bundle(folder, torch.device("cpu"))


def code_of(wanted: Quantisation) -> tuple[str, ...]:
    """Return the code that trains a network, as entries of a digest."""
    attacked = ("lab.experiments.qusecnets.adversarial:train_in_box",) if wanted.attacked else ()
    return (f"{_MODULE}:recipe", f"{_MODULE}:train", f"{_MODULE}:write", *attacked)


def work_of(folder: Path, wanted: Quantisation, task: Task) -> Path:
    """Return where in `folder` this code keeps the network that it trains on these pictures: a row uses no other."""
    return folder / digest(made_by(*code_of(wanted)), task.state)


def trained(name: str, task: Task, folder: Path, work: Path) -> Bundle:
    """Return the bundle of a network in `folder`. If it is missing, train it first, with checkpoints in `work`."""
    if (folder / "model.toml").is_file():
        return load_bundle(folder, torch.device("cpu"))
    wanted = NETWORKS[name]
    checkpoint = work / name / "checkpoint.pt"
    network = train(wanted, task.train.images, task.train.labels, recipe(wanted), checkpoint)
    if wanted.attacked:
        network = train_in_box(network, task.train.images, task.train.labels, checkpoint.with_name("attacked.pt"))
    bundle = write(folder, wanted, network, task.classes, task.train.images.shape[1])
    print("\n".join(record(name, network, bundle, task, folder)), flush=True)
    return bundle


def record(name: str, network: QuantisedNetwork, bundle: Bundle, task: Task, folder: Path) -> list[str]:
    """Write `training.md`: the network, the learned layer, and the accuracy on the test split."""
    wanted = NETWORKS[name]
    shared = len(network.thresholds) < 100
    thresholds = ", ".join(f"{each:.4f}" for each in network.thresholds.tolist()) if shared else "one for each pixel"
    learned = f"; thresholds {thresholds}; steepness {network.log_steepness.exp().item():.2f}" if thresholds else ""
    epochs = f"{recipe(wanted).epochs} epochs" + (
        f", then {ATTACKED.epochs} against PGD in the output box" if wanted.attacked else ""
    )
    lines = [
        f"{bundle.model_id}: {len(task.train)} training pictures, {epochs}{learned}",
        f"{len(task.test)} test pictures: accuracy {bundle_accuracy(bundle, task.test.images, task.test.labels):.4f}",
    ]
    write_training_record(folder, f"python -m lab.experiments.qusecnets.training {name}", lines)
    return lines


def main() -> None:
    """Train each named network that is missing, and write its bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(NETWORKS), metavar="NAME", help=", ".join(NETWORKS))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POINTILLIST_DATA", ".")))
    parser.add_argument("--work", type=Path, default=Path("runs/qusecnets/networks"), help="where checkpoints go")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where the bundles' folders go")
    arguments = parser.parse_args()
    for name in arguments.names:
        task = load_task(NETWORKS[name].data, arguments.data)
        trained(name, task, arguments.out / name, work_of(arguments.work, NETWORKS[name], task))


if __name__ == "__main__":
    run_command(main)
