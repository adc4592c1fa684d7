"""`pointillist lab super-iot`: the whole experiment."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infra.cli.code import AllowCode
from infra.cli.lab.evaluate import Device, Seed, bundle_folder, chosen, lab_app, lab_extra, torch_device


class Reported:
    """The experiment's steps: a line each, under a bar when stderr is a terminal."""

    def __init__(self, what: str = "super-iot") -> None:
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self.progress.add_task(what, total=0)
        self._total = 0

    def expect(self, count: int) -> None:
        """Add so many steps."""
        self._total += count
        self.progress.update(self._task, total=self._total)

    def done(self, what: str) -> None:
        """Count one step."""
        self.progress.advance(self._task)
        self._console.print(f"{datetime.now():%H:%M:%S} {what}", markup=False, highlight=False)


@lab_app.command("super-iot")
def super_iot(
    images: Annotated[
        int | None, typer.Option(help="At most so many correctly classified pictures a judge, for every row.", min=1)
    ] = None,
    out: Annotated[Path, typer.Option(help="Where CSV, Markdown and plots go.")] = Path("docs/results/super-iot"),
    runs: Annotated[
        Path, typer.Option(help="Where finished steps are kept: the same command goes on where it stopped.")
    ] = Path("runs/super-iot"),
    bundle: Annotated[
        list[str] | None,
        typer.Option(help="Judges: folders or names of shipped bundles; else cifar10 and the lab's own judges."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="npz with images and labels; else CIFAR-10's test split in POINTILLIST_DATA.")
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="attacks, tables, eot, psnr, bytes or figures; else all.")
    ] = None,
    attack: Annotated[list[str] | None, typer.Option(help="Only these rows: fgsm, pgd, pgd8, cw, …; else all.")] = None,
    sweep_images: Annotated[
        int, typer.Option(help="Pictures of all rows with several ratios and repeats.", min=1)
    ] = 1000,
    slow_images: Annotated[
        int, typer.Option(help="Pictures of the attacks that minimise the change: DeepFool, L-BFGS, C&W.", min=1)
    ] = 1000,
    repeats: Annotated[int, typer.Option(help="Fresh masks for every picture of the sweep.", min=1)] = 10,
    paper_repeats: Annotated[int, typer.Option(help="The same for paper mode, several times as slow.", min=1)] = 3,
    eot_images: Annotated[int, typer.Option(help="Pictures attacked through the whole default.", min=1)] = 1000,
    eot_samples: Annotated[int, typer.Option(help="Masks a step of that attack.", min=1)] = 10,
    eot_steps: Annotated[int, typer.Option(help="Its steps.", min=1)] = 10,
    other_images: Annotated[int, typer.Option(help="Like --images, for the judges after the first.", min=1)] = 1000,
    other_repeats: Annotated[int, typer.Option(help="Like --repeats, for the judges after the first.", min=1)] = 3,
    other_slow_images: Annotated[
        int, typer.Option(help="Like --slow-images, for the judges after the first.", min=1)
    ] = 200,
    weights_without_attack: Annotated[
        Path | None, typer.Option(help="Weights of the reconstruction trained without any attack: a row beside.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    allow_code: AllowCode = False,
) -> None:
    """SUPER-IoT's tables and figures, next to baselines and requirements, under attacks of both kinds.

    The slow attacks take most of the time: minutes on a GPU, hours on a CPU. Verdicts go to stdout, files to --out.
    """
    with lab_extra():
        from infra.environment import Environment
        from lab.data import read_cifar10_test, read_pictures
        from lab.experiments.cache import Cache
        from lab.experiments.super_iot.plan import OUTSIDE_ROWS, PAPER_ROWS, Plan
        from lab.experiments.super_iot.run import PARTS, Experiment
        from processors.bundle import load_bundle

        parts = tuple(chosen(name, *PARTS, option="--part") for name in part or PARTS)
        keys = dict.fromkeys(row.key for row in (*PAPER_ROWS, *OUTSIDE_ROWS))
        attacks = None if attack is None else tuple(chosen(name, *keys, option="--attack") for name in attack)
        plan = Plan(
            images=images, sweep_images=sweep_images, slow_images=slow_images,
            repeats=repeats, paper_repeats=paper_repeats,
            eot_images=eot_images, eot_steps=eot_steps, eot_samples=eot_samples, attacks=attacks, seed=seed,
        )  # fmt: skip
        place = torch_device(device)
        folders = [bundle_folder(name) for name in bundle] if bundle else judge_folders()
        bundles = [load_bundle(folder, place) for folder in folders]
        classes = min(len(found.settings.classes) for found in bundles)
        folder = Environment().data
        if data is None:
            pictures = read_cifar10_test(folder, classes)
        else:
            pictures = read_pictures(data, classes)
        steps = Reported()
        experiment = Experiment(
            bundles=bundles, pictures=pictures, plan=plan, out=out,
            beside=plan.smaller(other_images, other_repeats, other_slow_images),
            cache=Cache(runs), videos=sorted((folder / "video").glob("*.mp4")) if folder else [],
            weights_without_attacks=weights_without_attack, command=shown_command(),
        )  # fmt: skip
        with steps.progress:
            verdict = experiment.run(parts, steps)
    for line in verdict:
        typer.echo(line)


def judge_folders() -> list[Path]:
    """Return the default judges: the shipped CIFAR-10 bundle, and the lab's own trained ones."""
    from importlib.resources import files

    from lab.networks.families import JUDGES
    from processors.bundle import shipped_bundle

    own = Path(str(files("lab"))) / "networks"
    trained = [own / family for family in JUDGES if (own / family / "model.toml").is_file()]
    return [shipped_bundle("cifar10"), *trained]


def shown_command() -> str:
    """Return the command as typed, without the path of the program."""
    import shlex
    import sys

    return shlex.join(["pointillist", *sys.argv[1:]])
