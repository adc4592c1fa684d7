"""`pointillist lab codefend`: the whole experiment on backdoors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli.lab.evaluate import chosen, lab_app, lab_extra
from infra.cli.lab.super_iot import Reported
from schemas.errors import ConfigError


@lab_app.command("codefend")
def codefend(
    models: Annotated[
        Path | None, typer.Option(help="Where python -m lab.backdoor.train left sick models; else those that ship.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where CSV, Markdown and plots go.")] = Path("docs/results/codefend"),
    runs: Annotated[
        Path, typer.Option(help="Where finished steps are kept: the same command goes on where it stopped.")
    ] = Path("runs/codefend"),
    model: Annotated[
        list[str] | None, typer.Option(help="Only these sick models, by name; else all that are there.")
    ] = None,
    part: Annotated[list[str] | None, typer.Option(help="detection or repair; else both.")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Only these ways of curing: default, paper, fine-tuning, …; else all.")
    ] = None,
    quarantine: Annotated[
        list[str] | None,
        typer.Option(help="Only these: pure, 10 % impure, 30 % impure, four cameras, all stamped; else all."),
    ] = None,
    ratio: Annotated[list[float] | None, typer.Option(help="Only these drop ratios: 0.25, 0.5; else both.")] = None,
    images: Annotated[int, typer.Option(help="Clean pictures for STRIP, and as many stamped ones.", min=100)] = 2500,
    other_images: Annotated[
        int, typer.Option(help="The same for models other than those with a patch at 1 %.", min=100)
    ] = 1000,
) -> None:
    """CoDefend's tables and figures next to ours, and other ways of curing a model.

    It takes hours on a CPU. Verdicts go to stdout, files to --out. Rows in --out that are still valid are not computed
    again, and other rows stay.
    """
    with lab_extra():
        from infra.environment import Environment
        from lab.backdoor.train import shipped_models
        from lab.experiments.cache import Cache
        from lab.experiments.codefend.cures import FINE_TUNING, METHODS
        from lab.experiments.codefend.findings import PURE
        from lab.experiments.codefend.plan import EVERY, FEW_CAMERAS, IMPURE, Plan
        from lab.experiments.codefend.run import PARTS, Experiment
        from lab.experiments.codefend.subjects import load_subjects

        data = Environment().data
        if data is None:
            raise ConfigError("expected POINTILLIST_DATA, the folder with mnist.npz, gtsrb.npz and cifar10.npz")
        every, folder = Plan().models, models or shipped_models()
        there = [name for name in every if (folder / name).is_dir()]
        if not model and not there:
            raise ConfigError(f"expected sick models in {folder}: a checkout has them, lab.backdoor.train makes them")
        names = tuple(chosen(name, *every, option="--model") for name in model or there)
        parts = tuple(chosen(name, *PARTS, option="--part") for name in part or PARTS)
        methods = tuple(chosen(name, *METHODS, FINE_TUNING, option="--method") for name in method or ())
        kinds = tuple(
            chosen(name, PURE, *IMPURE, FEW_CAMERAS, EVERY, option="--quarantine") for name in quarantine or ()
        )
        plan = Plan(
            models=names, images=images, other_images=other_images, parts=parts, methods=methods, quarantines=kinds,
            ratios=tuple(ratio or Plan.ratios),
        )  # fmt: skip
        subjects = load_subjects(list(names), folder, data)
        steps = Reported("codefend")
        experiment = Experiment(subjects, plan, Cache(runs), out)
        with steps.progress:
            verdict = experiment.run(steps)
    for line in verdict:
        typer.echo(line)
