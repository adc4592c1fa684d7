"""`pointillist lab stale`: rows of the experiments that have to be measured, and their queue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli.lab.shared import chosen, lab_app, lab_extra, require_folder, require_writable, shown_command
from schemas.errors import ConfigError


@lab_app.command("stale")
def stale(
    run: Annotated[bool, typer.Option("--run", help="Measure the rows, the most worthwhile first.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Name of an experiment. Default: all experiments.")] = None,
    row: Annotated[list[str] | None, typer.Option(help="Only rows whose name contains this text.")] = None,
    hours: Annotated[
        float | None, typer.Option(help="Only rows that can be measured within this number of hours.", min=0.0)
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder of the rows and pages.")] = Path("docs/results"),
    runs: Annotated[Path, typer.Option(help="Folder of the checkpoints.")] = Path("runs"),
    json: Annotated[
        Path | None, typer.Option(help="JSON file for the names of the stale rows, which the pages read.")
    ] = None,
) -> None:
    """List the rows of experiments that are missing or were made by other code, or measure them.

    A row is also stale if its bundle, data or settings differ. It stays current if the ledger of `lab golden` shows
    that the change of code is harmless. The list ends with the number of rows and the estimated hours. With --run the
    rows are measured one at a time, on one thread and at the lowest priority. A killed run resumes where it stopped.
    """
    with lab_extra():
        from infra.state_folder.environment import Environment
        from lab.experiments.catalogue import experiments
        from lab.experiments.harness.plan import MISSING, Workplace
        from lab.experiments.harness.queue import affordable, measure, only_queue, stale_rows, yield_to_others
        from lab.experiments.harness.stale_file import write_stale_file

        if json is not None and only:
            raise ConfigError(
                "--json: expected no --only next to it: the file is about all experiments. Leave one out."
            )
        if json is not None:
            require_writable(json)
            require_folder(json.absolute().parent, "--json")
        known = experiments()
        names = [chosen(name, *known, option="--only") for name in only or known]
        place = Workplace(results, runs, Environment().data)
        lacking = ""
        if place.data is None or not place.data.is_dir():
            lacking = f"POINTILLIST_DATA: expected the folder of the data sets, got {place.data or 'none'}"
        if lacking and json is not None:
            raise ConfigError(f"{lacking}: --json would name every row that reads them. Set the variable.")
        plans = [known[name](place) for name in names]
        for part in row or ():
            if not any(part in cell.name for plan in plans for cell in plan.cells):
                raise ConfigError(
                    f"--row: expected a part of a row's name in {', '.join(names)}, got {part!r}. Correct it."
                )
        found = stale_rows(plans)
        if json is not None:
            write_stale_file(json, plans, found)
        wanted = [each for each in found if not row or any(part in each.cell.name for part in row)]
        wanted = affordable(wanted, hours)
        if run:
            require_folder(runs, "--runs")
            with only_queue(runs):
                yield_to_others()
                failed = measure(wanted, shown_command(), lambda line: typer.echo(line), hours)
            if json is not None:
                write_stale_file(json, plans, stale_rows(plans))
            raise typer.Exit(1 if failed else 0)
    if lacking:
        typer.echo(f"{lacking}: every row that reads them is listed as stale.", err=True)
    for each in wanted:
        typer.echo(f"{each.plan.name}\t{each.cell.name}\t{each.why}\t{each.seconds / 60:.1f} min")
    total = sum(each.seconds for each in wanted)
    published = sum(each.why != MISSING for each in wanted)
    typer.echo(f"{len(wanted)} rows are stale, {published} of them published, about {total / 3600:.1f} hours")
