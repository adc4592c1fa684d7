"""`pointillist lab red-team`: adaptive attacks on a bundle behind its defence."""

from __future__ import annotations

from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, cast

import typer
from rich.table import Table

from infra.cli.code import AllowCode
from infra.cli.lab.shared import (
    BundleOption,
    Device,
    DropRatio,
    Seed,
    bundle_folder,
    file_of_pictures,
    lab_app,
    lab_extra,
    read_sample,
    require_folder,
    require_writable,
    shown_command,
    torch_device,
    write_json,
)
from infra.cli.terminal import Console
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from lab.red_team.jobs import Job
    from lab.red_team.plan import Plan, Speeds
    from lab.red_team.result import Result
    from processors.device.precision import Precision


TELLING_S: Final = 20.0


class ProgressReporter:
    """Print a line on stderr for every batch: its progress and the remaining time."""

    def __init__(self, *, each: bool = False) -> None:
        self._each = each
        self._console = Console(stderr=True, soft_wrap=True)
        self._began = datetime.now()
        self._expected = self._done = self._fresh = 0.0

    def expect(self, plan: Plan, speeds: Speeds) -> None:
        """Print the plan before the start."""
        self._expected += plan.seconds
        gradients = "none" if not speeds.gradient_s else f"{1 / speeds.gradient_s:.0f} pictures/s"
        self._print_line(
            f"plan: {len(plan.jobs)} attacks, at most {_minutes(plan.seconds)}, measured at {gradients} forward and "
            f"backward, {1 / speeds.forward_s:.0f} forward"
        )
        for job, seconds in plan.costs.items() if self._each else ():
            self._print_line(f"{job}: at most {_minutes(seconds)}")
        for line in plan.left_out:
            self._print_line(f"left out by the budget: {line}")

    def batch(self, job: Job, pictures: int, seconds: float, kept: bool) -> None:
        """Count a batch with this expected number of seconds."""
        self._done += seconds
        self._fresh += 0.0 if kept else seconds
        took = (datetime.now() - self._began).total_seconds()
        # Ratio of the measured to the expected time so far, once there is enough of it.
        pace = took / self._fresh if self._fresh > TELLING_S else 1.0
        left = _minutes((self._expected - self._done) * pace)
        self._print_line(f"{job.name}: {pictures} pictures{', kept from before' if kept else ''}; about {left} left")

    def _print_line(self, what: str) -> None:
        self._console.print_line(f"{datetime.now():%H:%M:%S} {what}")


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


@lab_app.command("red-team")
def red_team(
    bundle: BundleOption,
    data: Annotated[
        Path | None,
        typer.Option(
            help="npz with images (N, H, W, C) or (N, H, W) uint8 and labels (N,). Default: CIFAR-10's test split "
            "in POINTILLIST_DATA."
        ),
    ] = None,
    images: Annotated[
        int,
        typer.Option(
            help="Number of pictures, drawn at random from --data; of CIFAR-10's test split, the first ones.",
            min=1,
        ),
    ] = 1000,
    defence: Annotated[
        str,
        typer.Option(
            help="Defence, and what the attacker knows of it: fleet (everything but the key), key-known, blind, "
            "stages, bare; or a baseline: bit-depth, jpeg, shield, pixel-deflection, rand, "
            "feature-distillation."
        ),
    ] = "fleet",
    eps: Annotated[str, typer.Option(help="L∞ bound on frames in [0, 1]: a number or a fraction.")] = "8/255",
    drop: DropRatio = 0.25,
    attacks: Annotated[
        str | None, typer.Option(help="Attacks, separated by commas: eot-pgd, square, strength, … Default: all.")
    ] = None,
    surrogate: Annotated[
        str | None,
        typer.Option(help="Bundle from which attacks are transferred. Default: the network without the defence."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help="Time limit in minutes. To meet it, fewer pictures are attacked and attacks are left out, "
            "AutoAttack first: the result is then no worst case. The report lists the reductions. Default: no "
            "limit."
        ),
    ] = None,
    estimate: Annotated[bool, typer.Option(help="Only print the estimated time of each attack.")] = False,
    json: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of pages, plots and CSV, with one sub-folder for each run.")
    ] = None,
    gradient_precision: Annotated[
        str,
        typer.Option(
            help="Arithmetic of the attacker's gradients: float32; tf32 (GPU); or bf16, about twice as fast on "
            "processors with bfloat16 units. Answers and verdicts are computed in float32."
        ),
    ] = "float32",
    runs: Annotated[Path, typer.Option(help="Folder of finished batches, from which the same command resumes.")] = Path(
        "runs/red-team"
    ),
    seed: Seed = 0,
    device: Device = "auto",
    allow_code: AllowCode = False,
) -> None:
    """Attack a network through its defence and judge the evaluation itself by a checklist.

    A picture counts as robust only if it is classified correctly under every attack in all of ten submissions. A high
    figure with signs of gradient masking proves nothing. All attacks take hours on a CPU: see --budget.
    """  # fmt: skip
    with lab_extra():
        from infra.state_folder.environment import Environment
        from lab.data import read_cifar10_test, to_frames
        from lab.red_team.defences import Defence, sample_size
        from lab.red_team.pages import run_name, write_pages
        from lab.red_team.run import RedTeam
        from processors.bundle import load_bundle

        if json is not None:
            require_writable(json)
        require_folder(runs, "--runs")
        if out is not None:
            require_folder(out, "--out")
        strength = _strength(eps)
        place, folder = torch_device(device), bundle_folder(bundle)
        network = load_bundle(folder, place)
        other = None if surrogate is None else load_bundle(bundle_folder(surrogate), place)
        classes = len(network.settings.classes)
        if data is None:
            folder_of_data = Environment().data
            with file_of_pictures((folder_of_data or Path()) / "cifar10.npz"):
                pictures = read_cifar10_test(folder_of_data, classes, images)
        else:
            pictures = read_sample(data, classes, images)
        sample = to_frames(pictures.first(sample_size(*pictures.images.shape[1:3])).images, place)
        against = Defence(defence, network, drop, sample, other)
        name = run_name(folder.resolve().name, defence, drop if against.drops else None, strength)
        groups = None if attacks is None else tuple(each.strip() for each in attacks.split(",") if each.strip())
        team = RedTeam(
            against, pictures, strength, runs / name, attacks=groups,
            budget_s=None if budget is None else budget * 60, seed=seed,
            gradient_precision=cast("Precision", gradient_precision),
        )  # fmt: skip
        if estimate:
            typer.echo(f"at most {_minutes(team.estimate(ProgressReporter(each=True)))}")
            return
        result = team.run(ProgressReporter(), shown_command())
        if json is not None:
            write_json(json, result.document())
        page = None if out is None else write_pages(out, name, result)
    _print(result)
    if page is not None:
        typer.echo(f"pages: {page}")


def _strength(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ConfigError(f"--eps: expected a number or a fraction such as 8/255, got {text!r}. Correct it.") from None


def _print(result: Result) -> None:
    console = Console(soft_wrap=True)
    table = Table("attack", "n", "accuracy", "every time", title=result.defence.bundle.model_id, title_justify="left")
    for row in result.rows():
        shares = (
            f"{value:.3f} [{low:.3f}, {high:.3f}]"
            for value, low, high in (
                (row.accuracy, row.accuracy_low, row.accuracy_high),
                (row.every_time, row.every_time_low, row.every_time_high),
            )
        )
        table.add_row(row.name, str(row.compared), *shares)
    console.print(table)
    for point, verdict in result.verdicts.items():
        console.print_line(f"{point}: {verdict.status}: {verdict.why}")
    for sign in result.signs:
        console.print_line(f"SIGN OF GRADIENT MASKING: {sign}")
    for line in result.left_out:
        console.print_line(f"left out: {line}")
    clean, worst = result.outcomes["clean"].accuracy, result.worst
    left = "no attack ran"
    if worst is not None:
        left = f"worst case {worst.value:.3f} [{worst.low:.3f}, {worst.high:.3f}] of {len(result.standing)} pictures"
    console.print_line(f"clean accuracy {clean.value:.3f}, {left}")
