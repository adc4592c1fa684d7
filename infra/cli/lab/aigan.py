"""`pointillist lab aigan`: attacks by a trained generator, and its training."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.lab.shared import (
    JsonFile,
    Seed,
    lab_app,
    lab_extra,
    print_figures,
    require_folder,
    require_writable,
    write_json,
)
from infra.cli.terminal import print_line

aigan_app = typer.Typer(help="AI-GAN: targeted attacks in one pass of a trained generator.", no_args_is_help=True)
lab_app.add_typer(aigan_app, name="aigan")

Dataset = Annotated[str, typer.Option(help="Data set and target network: mnist, cifar10, scene or scene-hardened.")]
BlackBox = Annotated[
    bool,
    typer.Option(
        "--black-box", help="Black-box attack: use only the outputs of the target network, by dynamic distillation."
    ),
]


@aigan_app.command()
def train(
    dataset: Dataset,
    black_box: BlackBox = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the generator. Default: the shipped generator's folder.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the checkpoint, from which the same command resumes.")] = Path(
        "runs/aigan"
    ),
    steps: Annotated[
        int | None, typer.Option(help="Number of training batches. Default: the recipe's number.", min=1)
    ] = None,
    seed: Seed = 0,
    start: Annotated[
        Path | None,
        typer.Option(help="Folder of a shipped generator: start with its weights, by the recipe for longer trainings."),
    ] = None,
) -> None:
    """Train a generator, export it to ONNX after each cycle of its recipe and record its training.

    It takes minutes to hours on one core. The same command resumes a stopped training; with more steps it continues a
    finished one.
    """
    with lab_extra():
        from dataclasses import replace

        from infra.state_folder.environment import Environment
        from lab.aigan.run import train_task
        from lab.aigan.tasks import home_of, task_of

        task = task_of(dataset)
        require_folder(runs, "--runs")
        if out is not None:
            require_folder(out, "--out")
        recipe = replace(task.recipe(black_box, continued=start is not None), seed=seed)
        recipe = recipe if steps is None else replace(recipe, steps=steps)
        train_task(
            task, recipe, black_box=black_box, data=Environment().data, out=out or home_of(task, black_box), runs=runs,
            print_line=_print_line, start=start,
        )  # fmt: skip


@aigan_app.command()
def attack(
    dataset: Dataset,
    json: JsonFile,
    images: Annotated[int, typer.Option(help="Number of test pictures, the first ones.", min=1)] = 1000,
    black_box: BlackBox = False,
    generator: Annotated[
        Path | None, typer.Option(help="Folder of the generator. Default: the shipped generator.")
    ] = None,
    eps: Annotated[
        float | None, typer.Option(help="L∞ bound on frames in [0, 1]. Default: the generator's own.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Attack test pictures towards random other classes, by the generator and by PGD with 40 steps.

    `seconds` is the time of the generator under ONNX Runtime, `pgd40_seconds` the time of PGD through the same network.
    Both use the same batch size and number of threads, after a warm-up run. `l_inf` is the largest change of a value.
    """
    with lab_extra():
        from infra.state_folder.environment import Environment
        from lab.aigan.compare import compare

        require_writable(json)
        figures = compare(
            dataset, images, data=Environment().data, black_box=black_box, generator=generator, eps=eps, seed=seed
        )
    write_json(json, figures)
    print_figures(str(figures["settings"]["generator"]), figures)


def _print_line(line: str) -> None:
    print_line(f"{datetime.now():%H:%M:%S} {line}", err=True)
