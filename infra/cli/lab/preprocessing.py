"""`pointillist lab preprocessing`: the whole experiment on preprocessing against adaptive attacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.lab.evaluate import Seed, chosen, lab_app, lab_extra
from infra.cli.lab.super_iot import Reported, shown_command
from schemas.errors import ConfigError


@lab_app.command("preprocessing")
def preprocessing(
    subject: Annotated[list[str] | None, typer.Option(help="cifar10 or scene128; else both.")] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="standard, bpda, eot, adaptive, others, delta or combined; else all. The page then has no others."
        ),
    ] = None,
    images: Annotated[int | None, typer.Option(help="At most so many pictures for every row.", min=1)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few pictures and steps: to see that it runs.")] = False,
    out: Annotated[Path, typer.Option(help="Where CSV, Markdown and plots go.")] = Path("docs/results/preprocessing"),
    runs: Annotated[
        Path, typer.Option(help="Where finished rows are kept: the same command goes on where it stopped.")
    ] = Path("runs/preprocessing"),
    finished: Annotated[
        bool, typer.Option("--finished", help="Measure nothing: write the page from the rows that --runs has.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Qiu et al.'s preprocessing next to the paper's tables, then under adaptive attacks.

    It takes an hour on one core. Verdicts go to stdout, files to --out.
    """
    with lab_extra():
        from infra.environment import Environment
        from lab.experiments.cache import Cache
        from lab.experiments.preprocessing.plan import Plan
        from lab.experiments.preprocessing.run import Experiment
        from lab.experiments.preprocessing.subjects import SUBJECTS, load_subject

        names = [chosen(name, *SUBJECTS, option="--subject") for name in subject or SUBJECTS]
        plan = replace(Plan(), seed=seed)
        plan = plan.quick() if quick else plan
        plan = plan if images is None else plan.at_most(images)
        if part:
            plan = replace(plan, parts=tuple(chosen(name, *Plan.parts, option="--part") for name in part))
        data = Environment().data
        if data is None:
            raise ConfigError("expected POINTILLIST_DATA, the folder with cifar10.npz")
        subjects = [load_subject(name, data, seed) for name in names]
        steps = Reported("preprocessing")
        with steps.progress:
            lines = Experiment(subjects, plan, Cache(runs), out, shown_command(), finished).run(steps)
    for line in lines:
        typer.echo(line)
