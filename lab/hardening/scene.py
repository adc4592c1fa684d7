"""Harden the network of the simulated fleet: `python -m lab.hardening.scene --out bundles/scene`.

Training continues from the plain network with scenes of several sizes, easy and hard. Training, held-out and test
scenes come from simulators with different seeds or cameras.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from lab.data import LabelledPictures
from lab.hardening.processes import Processes
from lab.hardening.run import harden
from lab.hardening.scene_batches import SIZES, SceneBatches, Sized
from lab.hardening.settings import MARK, HardenSettings
from lab.repair.checkpoints import digest
from lab.training.bundle import write_training_record
from lab.training.scene import CALIBRATION_SEED, scenes
from lab.training.successor import write_successor
from processors.bundle import load_bundle
from schemas.runtime.user_errors import run_command

HELD_OUT = 2_100


class _Printed:
    """A progress receiver that prints lines on stdout."""

    def phase(self, name: str, steps: int) -> None:
        """Print the phase and its steps."""
        self.print_line(f"{name}: {steps} steps")

    def advance(self, steps: int) -> None:
        """Print nothing."""

    def print_line(self, line: str) -> None:
        """Print the line."""
        print(line, flush=True)


def main() -> None:
    """Train, or resume, and write the bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="source", type=Path, default=Path("bundles/scene-plain"))
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--work", type=Path, default=Path("runs/scene-hardened"), help="folder of the training state")
    parser.add_argument("--epochs", type=int, default=10, help="of 100 batches")
    parser.add_argument("--eps", type=float, default=0.036)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--hard", type=float, default=0.5, help="share of places that are harder than usual")
    parser.add_argument("--least", type=float, default=0.3, help="share of ε for the hardest places")
    parser.add_argument("--frames", type=int, nargs=len(SIZES), default=[each.frames for each in SIZES])
    parser.add_argument("--turns", type=int, nargs=len(SIZES), default=[each.turns for each in SIZES])
    arguments = parser.parse_args()
    sizes = tuple(
        Sized(each.size, frames, turns)
        for each, frames, turns in zip(SIZES, arguments.frames, arguments.turns, strict=True)
    )
    bundle = load_bundle(arguments.source, torch.device("cpu"))
    settings = HardenSettings(
        epochs=arguments.epochs, eps=arguments.eps, drops=(0.25, 0.25, 0.0, 0.5), rate=arguments.rate
    )
    batches = SceneBatches(settings.batch, settings.seed, 100, hard=arguments.hard, least=arguments.least, sizes=sizes)
    held_out = LabelledPictures("scenes", *scenes(CALIBRATION_SEED, HELD_OUT))
    found = harden(
        bundle, batches, held_out, settings, inputs=digest(f"{sizes} {arguments.hard} {arguments.least}"),
        work=arguments.work, processes=Processes(), progress=_Printed(),
    )  # fmt: skip
    hardened, line = write_successor(arguments.out, arguments.source, found.network, held_out, MARK, dropped=True)
    lines = [
        f"{hardened.model_id}: {arguments.epochs * 100} batches of {settings.batch} from {bundle.model_id}",
        *found.lines(),
        line,
    ]
    print("\n".join(lines))
    options = f"--epochs {arguments.epochs} --eps {arguments.eps:g} --rate {arguments.rate:g}"
    options += f" --hard {arguments.hard:g} --least {arguments.least:g}"
    for name, given in (("frames", arguments.frames), ("turns", arguments.turns)):
        options += f" --{name} {' '.join(map(str, given))}"
    places = f"--from {arguments.source} --out {arguments.out}"
    write_training_record(arguments.out, f"python -m lab.hardening.scene {places} {options}", lines)


if __name__ == "__main__":
    run_command(main)
