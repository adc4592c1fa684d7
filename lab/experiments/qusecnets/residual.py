"""The attacked network with a residual one behind its layer: `python -m lab.experiments.qusecnets.residual`.

Model B fits attacked pictures of its training hardly better than new ones, so it lacks room. This network has more
channels on smaller maps.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lab.backdoor.tasks import Task, load_task
from lab.experiments.qusecnets.adversarial import ATTACKED, attacked_batches
from lab.experiments.qusecnets.network import CLASSES, Architecture, Quantisation, QuantisedNetwork
from lab.experiments.qusecnets.training import SHIPPED, recipe, train, write
from lab.networks.mnist_residual import residual
from lab.training.bundle import bundle_accuracy, write_training_record
from lab.training.recipe import Recipe, fit
from schemas.runtime.user_errors import run_command

_MODULE: Final = "lab.experiments.qusecnets.residual"
CYCLES: Final[tuple[Recipe, ...]] = (
    replace(ATTACKED, epochs=32, peak_rate=0.1),
    replace(ATTACKED, epochs=8, peak_rate=0.03),
)
"""The recipes of the training in the output box. Each continues from the averaged weights of the one before."""
EPOCHS: Final = sum(each.epochs for each in CYCLES)


@dataclass(frozen=True)
class ResidualQuantisation(Quantisation):
    """An attacked network of MNIST with a residual network behind its layer."""

    @property
    def name(self) -> str:
        """The name, such as `mnist-cq2-attacked-residual`."""
        return f"{super().name}-residual"

    def behind(self, channels: int, side: int) -> Architecture:
        """Return the network behind the layer, for grey pictures of 28×28 pixels."""
        return Architecture("lab.networks.mnist_residual:residual", residual, {"classes": CLASSES})


RESIDUAL: Final = ResidualQuantisation("mnist", 2, attacked=True)
LIKE: Final = "mnist-cq2-attacked"
"""The network with model B, which meets the same attacks."""


def train_residual(task: Task, work: Path) -> QuantisedNetwork:
    """Train the network, first on clean pictures and then in the output box. Checkpoints in `work` let it resume."""
    images, labels = task.train.images, task.train.labels
    network = train(RESIDUAL, images, labels, recipe(RESIDUAL), work / "checkpoint.pt")
    for number, each in enumerate(CYCLES):
        network.network = fit(
            network.network, images, labels, network.normalised, each, work / f"attacked-{number}.pt",
            batches=attacked_batches(network),
        )  # fmt: skip
    return network


def main() -> None:
    """Train the network, or resume, and write its bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POINTILLIST_DATA", ".")))
    parser.add_argument("--work", type=Path, default=Path("runs/qusecnets/residual"), help="where checkpoints go")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where the bundle's folder goes")
    arguments = parser.parse_args()
    task = load_task(RESIDUAL.data, arguments.data)
    folder = arguments.out / RESIDUAL.name
    bundle = write(folder, RESIDUAL, train_residual(task, arguments.work), task.classes, task.train.images.shape[1])
    accuracy = bundle_accuracy(bundle, task.test.images, task.test.labels)
    epochs = f"{recipe(RESIDUAL).epochs} epochs, then {EPOCHS} against PGD in the output box"
    lines = [
        f"{bundle.model_id}: {len(task.train)} training pictures, {epochs}",
        f"{len(task.test)} test pictures: accuracy {accuracy:.4f}",
    ]
    write_training_record(folder, f"python -m {_MODULE}", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    run_command(main)
