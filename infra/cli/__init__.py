"""The command `pointillist`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.console import Console

from schemas.errors import UserError

app = typer.Typer(
    name="pointillist",
    help="Camera fleets that send dots while the server sees the picture.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def options(
    factories: Annotated[
        str | None,
        typer.Option(
            help="Packages of your own, with commas between them, whose factories bundles may call: their code runs. "
            "POINTILLIST_FACTORIES says the same."
        ),
    ] = None,
) -> None:
    """Camera fleets that send dots while the server sees the picture."""
    if factories is not None:
        # For what runs here and for every role that is started from here.
        os.environ["POINTILLIST_FACTORIES"] = factories


def main() -> None:
    """Run the command; what a person can mend becomes one line on stderr and exit status 2."""
    # They register their commands.
    from infra.cli import (  # noqa: F401
        audit,
        bundle,
        camera,
        camera_told,
        doctor,
        key,
        model,
        pki,
        roles,
        signer,
        topics,
        up,
    )
    from infra.cli.lab import (  # noqa: F401
        aigan,
        codefend,
        evaluate,
        harden,
        learn_table,
        preprocessing,
        qusecnets,
        red_team,
        repair,
        strip,
        super_iot,
    )
    from infra.cli.passwords import hide_passwords

    hide_passwords()
    try:
        app()
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", markup=False, highlight=False)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in OWN_PACKAGES:
            raise
        message = f"error: this command needs {error.name}: install pointillist[server]"
        Console(stderr=True, soft_wrap=True).print(message, markup=False, highlight=False)
        sys.exit(UserError.exit_code)


OWN_PACKAGES = frozenset(("schemas", "producers", "processors", "consumers", "lab", "infra", "bundles"))
