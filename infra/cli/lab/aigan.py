"""`pointillist lab aigan`: attacks by a trained generator, their training, and the paper's tables."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from infra.cli.lab.evaluate import JsonFile, Seed, lab_app, lab_extra, print_figures, require_writable, write_json

aigan_app = typer.Typer(help="AI-GAN: targeted attacks in one pass of a trained generator.")
lab_app.add_typer(aigan_app, name="aigan")

Dataset = Annotated[str, typer.Option(help="mnist, cifar10 or scene.")]
BlackBox = Annotated[
    bool, typer.Option("--black-box", help="Of the target nothing but its answers, by dynamic distillation.")
]


@aigan_app.callback(invoke_without_command=True)
def experiments(
    context: typer.Context,
    dataset: Annotated[list[str] | None, typer.Option(help="mnist, cifar10 or scene; else all.")] = None,
    images: Annotated[int, typer.Option(help="Test pictures for the generators.", min=1)] = 10_000,
    pgd_images: Annotated[int, typer.Option(help="Of those, for FGSM and PGD, and for the times.", min=1)] = 1000,
    out: Annotated[Path, typer.Option(help="Where CSV, Markdown and plots go.")] = Path("docs/results/aigan"),
    runs: Annotated[
        Path, typer.Option(help="Where finished steps are kept: the same command goes on where it stopped.")
    ] = Path("runs/aigan/experiment"),
    seed: Seed = 0,
) -> None:
    """Without a command: AI-GAN's tables, with the shipped generators."""
    if context.invoked_subcommand is not None:
        return
    with lab_extra():
        from infra.cli.lab.super_iot import shown_command
        from infra.environment import Environment
        from lab.aigan.tasks import TASKS, task_of
        from lab.experiments.aigan.run import Experiment
        from lab.experiments.cache import Cache

        names = tuple(task_of(name).name for name in dataset or TASKS)
        out.mkdir(parents=True, exist_ok=True)
        text = Experiment(
            tasks=names, images=images, pgd_images=pgd_images, seed=seed, data=Environment().data, out=out,
            cache=Cache(runs), command=shown_command(), say=_say,
        ).run()  # fmt: skip
    typer.echo(text)


@aigan_app.command()
def train(
    dataset: Dataset,
    black_box: BlackBox = False,
    out: Annotated[Path | None, typer.Option(help="The generator's folder; else where it ships.")] = None,
    runs: Annotated[Path, typer.Option(help="Where the checkpoint goes: the same command goes on.")] = Path(
        "runs/aigan"
    ),
    steps: Annotated[int | None, typer.Option(help="Batches; else the recipe's.", min=1)] = None,
    seed: Seed = 0,
) -> None:
    """Train a generator, export it to ONNX every thousand steps and record its training.

    It takes minutes to hours on one core. The same command resumes a stopped training; with more steps it continues a
    finished one.
    """
    with lab_extra():
        from dataclasses import replace

        from infra.environment import Environment
        from lab.aigan.run import train_task
        from lab.aigan.tasks import home_of, task_of

        task = task_of(dataset)
        recipe = replace(task.recipe(black_box), seed=seed)
        recipe = recipe if steps is None else replace(recipe, steps=steps)
        train_task(
            task, recipe, black_box=black_box, data=Environment().data, out=out or home_of(task, black_box), runs=runs,
            say=_say,
        )  # fmt: skip


@aigan_app.command()
def attack(
    dataset: Dataset,
    json: JsonFile,
    images: Annotated[int, typer.Option(help="Only the first so many test pictures.", min=1)] = 1000,
    black_box: BlackBox = False,
    generator: Annotated[Path | None, typer.Option(help="A generator's folder; else the shipped one.")] = None,
    eps: Annotated[float | None, typer.Option(help="L∞ bound on frames in [0, 1]; else the generator's own.")] = None,
    seed: Seed = 0,
) -> None:
    """Attack test pictures towards random other classes, and the same ones by PGD with 40 steps.

    seconds is the generator's time under ONNX Runtime, pgd40_seconds that of PGD through the same network. Both use the
    same batch size and number of threads, after a first run that is not counted. l_inf is the largest change of a
    value.
    """
    with lab_extra():
        from infra.environment import Environment
        from lab.aigan.compare import compare

        require_writable(json)
        figures = compare(
            dataset, images, data=Environment().data, black_box=black_box, generator=generator, eps=eps, seed=seed
        )
    write_json(json, figures)
    print_figures(str(figures["settings"]["generator"]), figures)


def _say(line: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"{datetime.now():%H:%M:%S} {line}", markup=False, highlight=False)
