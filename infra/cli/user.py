"""`pointillist user`: who may log in to the console."""

from __future__ import annotations

import sys
from getpass import getpass
from pathlib import Path
from typing import Annotated

import typer

from infra.cli import app
from infra.cli.roles import State
from schemas.errors import ConfigError


@app.command()
def user(
    name: Annotated[str, typer.Argument(help="Who logs in.")],
    role: Annotated[
        str, typer.Option(help="viewer (looks), operator (tells cameras, handles alerts) or admin (models too).")
    ] = "viewer",
    file: Annotated[Path | None, typer.Option(help="The file of users; else users in --state.")] = None,
    state: State = None,
) -> None:
    """Add a user of the console, or change his role and password, which is asked for or read from standard input."""
    from consumers.console.users import Right, write_user
    from infra.layout import Layout

    if file is None and state is None:
        raise ConfigError("expected --file FILE or --state DIR")
    if role not in set(Right):
        raise ConfigError(f"--role: expected {', '.join(Right)}, got {role!r}")
    place = file or Layout((state or Path()).resolve()).users
    if sys.stdin.isatty():
        password = getpass(f"password of {name}: ")
        if getpass("again: ") != password:
            raise ConfigError("expected the same password twice")
    else:
        password = sys.stdin.readline().rstrip("\n")
    write_user(place, name, Right(role), password)
    print(f"{name} may log in as {role}: {place}")
