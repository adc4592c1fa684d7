"""`pointillist user …`: the users of the console."""

from __future__ import annotations

import sys
from getpass import getpass
from pathlib import Path
from typing import Annotated

import typer

from infra.cli import app
from infra.cli.access import State
from infra.cli.audit_line import note
from schemas.errors import ConfigError

user_app = typer.Typer(help="Users of the console.", no_args_is_help=True)
app.add_typer(user_app, name="user")

UsersFile = Annotated[Path | None, typer.Option(help="File of the users; by default `users` in --state.")]


@user_app.callback()
def group() -> None:
    """Users of the console. A running console follows every change: sessions of a changed or removed user end."""


@user_app.command()
def add(
    name: Annotated[str, typer.Argument(help="The user's name.")],
    role: Annotated[
        str,
        typer.Option(help="viewer (sees everything), operator (also cameras and alerts) or admin (also models)."),
    ] = "viewer",
    file: UsersFile = None,
    state: State = None,
) -> None:
    """Add a user, or change the role and the password of one; the password is read from the terminal or standard
    input."""
    from consumers.console.access.rights import Right
    from consumers.console.access.users import write_user

    place = _place(file, state)
    if role not in set(Right):
        raise ConfigError(f"--role: expected {', '.join(Right)}, got {role!r}. Correct it.")
    if sys.stdin.isatty():
        password = getpass(f"password of {name}: ")
        if getpass("again: ") != password:
            raise ConfigError("password: expected the same text twice, got two texts. Enter it again.")
    else:
        password = sys.stdin.readline().rstrip("\n")
    write_user(place, name, Right(role), password)
    _note(state, name, role, "added or changed")
    typer.echo(f"{name} may log in as {role}: {place}")


@user_app.command("list")
def list_users(file: UsersFile = None, state: State = None) -> None:
    """Print the users, each with its role."""
    from consumers.console.access.users import read_users

    for user in sorted(read_users(_place(file, state)).values(), key=lambda each: each.name):
        typer.echo(f"{user.name} {user.right}")


@user_app.command()
def remove(
    name: Annotated[str, typer.Argument(help="The user's name.")], file: UsersFile = None, state: State = None
) -> None:
    """Remove a user; a running console ends the user's sessions."""
    from consumers.console.access.users import remove_user

    place = _place(file, state)
    remove_user(place, name)
    _note(state, name, "", "removed")
    typer.echo(f"{name} may no longer log in: {place}")


def _note(state: Path | None, name: str, detail: str, outcome: str) -> None:
    from infra.state_folder import Layout

    if state is not None:
        note(Layout(state.resolve()), "user", name, detail, outcome)


def _place(file: Path | None, state: Path | None) -> Path:
    from infra.state_folder import Layout

    if file is None and state is None:
        raise ConfigError("--file is missing: expected the file of users. Give --file FILE or --state DIR.")
    return file or Layout((state or Path()).resolve()).users
