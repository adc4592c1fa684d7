"""`pointillist lab qusecnets`: the whole experiment on quantised inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.lab.evaluate import Seed, chosen, lab_app, lab_extra
from infra.cli.lab.super_iot import Reported, shown_command
from schemas.errors import ConfigError


@lab_app.command("qusecnets")
def qusecnets(
    network: Annotated[
        list[str] | None, typer.Option(help="mnist-cq2, cifar10-tq4, …; else those that meet every attack.")
    ] = None,
    images: Annotated[int | None, typer.Option(help="At most so many test pictures for every row.", min=1)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few pictures and steps: to see that it runs.")] = False,
    out: Annotated[Path, typer.Option(help="Where CSV, Markdown and plots go.")] = Path("docs/results/qusecnets"),
    runs: Annotated[
        Path, typer.Option(help="Where finished rows are kept: the same command goes on where it stopped.")
    ] = Path("runs/qusecnets"),
    finished: Annotated[
        bool, typer.Option("--finished", help="Measure nothing: write the page from the rows that --runs has.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """QuSecNets' figures next to ours, then the same networks under adaptive attacks.

    It takes an hour on one core. Rows of networks that are not named stay on the page. Verdicts go to stdout, files to
    --out. Networks that do not ship are trained first.
    """
    with lab_extra():
        from infra.environment import Environment
        from lab.experiments.cache import Cache
        from lab.experiments.qusecnets.network import NETWORKS
        from lab.experiments.qusecnets.plan import MAINS, Plan
        from lab.experiments.qusecnets.run import Experiment
        from lab.experiments.qusecnets.steepness import STEEP

        names = tuple(chosen(name, *NETWORKS, STEEP, option="--network") for name in network or (*MAINS, STEEP))
        data = Environment().data
        if data is None:
            raise ConfigError("expected POINTILLIST_DATA, the folder with mnist.npz and cifar10.npz")
        plan = replace(Plan(), seed=seed)
        plan = plan.quick() if quick else plan
        plan = plan if images is None else plan.at_most(images)
        steps = Reported("qusecnets")
        with steps.progress:
            lines = Experiment(names, data, plan, Cache(runs), out, shown_command(), finished).run(steps)
    for line in lines:
        typer.echo(line)
