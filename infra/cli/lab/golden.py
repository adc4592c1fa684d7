"""`pointillist lab golden`: the golden batch, and the ledger of harmless changes."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import typer

from infra.cli.lab.shared import lab_app, lab_extra
from schemas.errors import ConfigError


@lab_app.command("golden")
def golden(
    since: Annotated[str | None, typer.Option(help="Git revision of the older code that made the rows.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Append harmless changes to the ledger.")] = False,
    store: Annotated[bool, typer.Option("--store", help="Store the outputs of this code as the golden ones.")] = False,
) -> None:
    """Compute the golden batch, and list the kinds of rows for which a change of code is harmless.

    A change is harmless if the outputs agree with those of the older code, and the batch executes every changed line.
    Rows of the older code then stay current. Exit status 1 if an output deviates.
    """
    with lab_extra():
        import numpy as np

        from lab.experiments.catalogue import experiments
        from lab.experiments.harness import ledger
        from lab.experiments.harness.plan import Workplace
        from lab.golden import compare, parts

        if write and since is None:
            raise ConfigError("--since is missing: expected the revision of the older code with --write. Give it.")
        # First: a wrong revision is rejected before minutes of work.
        with nullcontext() if since is None else compare.checkout(since) as older:
            found, lines = compare.traced_outputs()
            if store:
                np.savez_compressed(parts.FILE, **found)  # type: ignore[arg-type]  # the stub takes `allow_pickle` alone
            wrong = parts.deviations(found, parts.stored())
            for name, why in wrong.items():
                typer.echo(f"{name}\tdeviates\t{why}")
            if older is None or wrong:
                typer.echo(f"{len(parts.PARTS) - len(wrong)} of {len(parts.PARTS)} parts agree")
                raise typer.Exit(1 if wrong else 0)
            known = compare.older_outputs(older)
            for name, why in (wrong := parts.deviations(found, known, parts.parts_of(known))).items():
                typer.echo(f"{name}\tdeviates from {since}\t{why}")
            if wrong:
                raise typer.Exit(1)
            families = {cell.code for planned in experiments().values() for cell in planned(Workplace()).cells}
            judged = compare.judged(older, sorted(families), lines)
        for each in judged:
            typer.echo(f"{' '.join(each.code)}\t{'stale' if each.uncovered else 'harmless'}")
            for missed in each.uncovered:
                typer.echo(f"  {missed.place}\t{missed.why}")
        if write:
            ledger.append(each.pair for each in judged if not each.uncovered)
        harmless = sum(not each.uncovered for each in judged)
        typer.echo(f"{harmless} of {len(judged)} changed kinds of rows stay current")
