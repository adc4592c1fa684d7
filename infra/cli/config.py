"""`pointillist config`: the settings of a role."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli import app
from infra.settings.roles import FILES, MODELS


@app.command()
def config(
    role: Annotated[str, typer.Argument(help=f"One of {', '.join(MODELS)}; with --schema also {', '.join(FILES)}.")],
    file: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="TOML file with settings of the role.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only check the settings: print nothing if they are valid.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of the settings, for an editor.")
    ] = False,
) -> None:
    """Print a role's settings in force as TOML: from the environment, from a file, and the defaults.

    Exit status 2 when a setting is unknown or wrong.
    """
    if schema:
        from infra.settings.json_schema import written_schema

        typer.echo(written_schema(role), nl=False)
        return
    from infra.settings.document import listing
    from infra.settings.load import SettingsSources, load
    from infra.settings.roles import model_of

    settings = load(model_of(role), SettingsSources(role, file), partial=not check)
    if not check:
        typer.echo(listing(settings, role), nl=False)
