"""`pointillist user …`: the users of the console."""

from __future__ import annotations

import sys
from getpass import getpass
from pathlib import Path
from typing import Annotated

import typer

from infra.cli import app
from infra.cli.audit_line import note
from infra.cli.login_file import State, login_file
from schemas.errors import ConfigError

user_app = typer.Typer(help="Users of the console.", no_args_is_help=True)
app.add_typer(user_app, name="user")

UsersFile = Annotated[Path | None, typer.Option(help="File of the users. Default: `users` in --state.")]


@user_app.callback()
def group() -> None:
    """Users of the console. A running console follows every change: sessions of a changed or removed user end. A
    change is in the audit log of the console that `up` runs on the state folder; with --file alone, in none."""


@user_app.command()
def add(
    name: Annotated[str, typer.Argument(help="The user's name.")],
    role: Annotated[
        str,
        typer.Option(
            help="Role: viewer (sees everything), operator (also controls cameras and alerts) or admin (also replays "
            "dead letters and repairs, trains and publishes models), for all sites; or roles by site, such as "
            "north=operator,south=viewer."
        ),
    ] = "viewer",
    file: UsersFile = None,
    state: State = None,
) -> None:
    """Add a user, or change the role and the password of one; the password is read from the terminal or standard
    input."""
    from consumers.console.access.private_lines import check_roles
    from consumers.console.access.users import write_user

    place, noted = login_file(file, state, "users", new=True)
    check_roles(role)
    if sys.stdin is not None and sys.stdin.isatty():
        password = getpass(f"password of {name}: ")
        if getpass("again: ") != password:
            raise ConfigError("password: expected the same text twice, got two texts. Enter it again.")
    else:
        try:
            password = "" if sys.stdin is None else sys.stdin.readline().rstrip("\n")
            password.encode()
        except UnicodeError:  # in a locale without UTF-8, bytes of no character come as surrogates
            raise ConfigError("password: expected a line of text in UTF-8, got other bytes. Correct it.") from None
    write_user(place, name, role, password)
    typer.echo(f"{name} may log in as {role}: {place}")
    note(noted, "user", name, role, "added or changed")


@user_app.command("list")
def list_users(file: UsersFile = None, state: State = None) -> None:
    """Print the users, each with its role."""
    from consumers.console.access.users import read_users

    for user in sorted(read_users(login_file(file, state, "users")[0]).values(), key=lambda each: each.name):
        typer.echo(f"{user.name} {user.roles}")


@user_app.command()
def remove(
    name: Annotated[str, typer.Argument(help="The user's name.")], file: UsersFile = None, state: State = None
) -> None:
    """Remove a user; a running console ends the user's sessions."""
    from consumers.console.access.users import read_users, remove_user

    place, noted = login_file(file, state, "users")
    remove_user(place, name)
    typer.echo(f"{name} may no longer log in: {place}")
    if not read_users(place, required=False):
        typer.echo("No user is left: a console does not start until you add one or delete the file.")
    note(noted, "user", name, "", "removed")
