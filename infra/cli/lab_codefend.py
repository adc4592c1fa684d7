"""`pointillist lab codefend`: the whole experiment on backdoors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli.lab import chosen, lab_app, lab_extra
from infra.cli.lab_super_iot import Reported, shown_command
from schemas.errors import ConfigError


@lab_app.command("codefend")
def codefend(
    models: Annotated[Path, typer.Option(help="Where python -m lab.backdoor.train left the sick models.")] = Path(
        "runs/backdoor"
    ),
    out: Annotated[Path, typer.Option(help="Where CSV, Markdown and plots go.")] = Path("docs/results/codefend"),
    runs: Annotated[
        Path, typer.Option(help="Where finished steps are kept: the same command goes on where it stopped.")
    ] = Path("runs/codefend"),
    model: Annotated[list[str] | None, typer.Option(help="Only these sick models, by name; else all.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="detection or repair; else both.")] = None,
    images: Annotated[int, typer.Option(help="Clean pictures for STRIP, and as many stamped ones.", min=100)] = 2500,
    other_images: Annotated[
        int, typer.Option(help="The same for models other than those with a patch at 1 %.", min=100)
    ] = 1000,
) -> None:
    """CoDefend's tables and figures beside ours, and other ways of curing a model.

    Hours on a CPU. Verdicts go to stdout, files to --out.
    """
    with lab_extra():
        from infra.environment import Environment
        from lab.experiments.cache import Cache
        from lab.experiments.codefend.plan import Plan
        from lab.experiments.codefend.run import PARTS, Experiment
        from lab.experiments.codefend.subjects import load_subjects

        data = Environment().data
        if data is None:
            raise ConfigError("expected POINTILLIST_DATA, the folder with mnist.npz, gtsrb.npz and cifar10.npz")
        every = Plan().models
        names = tuple(chosen(name, *every, option="--model") for name in model or every)
        parts = tuple(chosen(name, *PARTS, option="--part") for name in part or PARTS)
        plan = Plan(models=names, images=images, other_images=other_images, parts=parts)
        subjects = load_subjects(list(names), models, data)
        steps = Reported("codefend")
        experiment = Experiment(subjects, plan, Cache(runs), out, shown_command())
        with steps.progress:
            verdict = experiment.run(steps)
    for line in verdict:
        typer.echo(line)
