"""`pointillist token …`: the API tokens of the console."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from infra.cli import app
from infra.cli.audit_line import note
from infra.cli.login_file import State, login_file

token_app = typer.Typer(help="API tokens of the console.", no_args_is_help=True)
app.add_typer(token_app, name="token")

TokensFile = Annotated[Path | None, typer.Option(help="File of the tokens. Default: `tokens` in --state.")]


@token_app.callback()
def group() -> None:
    """API tokens of the console. Programs send one as `Authorization: Bearer TOKEN`; a running console follows every
    change. A change is in the audit log of the console that `up` runs on the state folder; with --file alone, in
    none."""


@token_app.command()
def create(
    name: Annotated[str, typer.Argument(help="The token's name, which the audit log shows.")],
    role: Annotated[
        str,
        typer.Option(
            help="Role: viewer, operator or admin, for all sites; or roles by site, such as "
            "north=operator,south=viewer."
        ),
    ] = "viewer",
    days: Annotated[int, typer.Option(help="Days until the token expires.", min=1, max=366)] = 30,
    file: TokensFile = None,
    state: State = None,
) -> None:
    """Create a token and print it. Only its hash is stored, so it cannot be printed again."""
    from consumers.console.access.owner import owner_name
    from consumers.console.access.tokens import create_token

    place, noted = login_file(file, state, "tokens", new=True)
    text = create_token(place, name, role, days, owner_name(), time.time())
    typer.echo(text)  # first: nothing can print it again
    note(noted, "token", name, f"{role}, {days} days", "created")


@token_app.command("list")
def list_tokens(file: TokensFile = None, state: State = None) -> None:
    """Print the tokens, each with its role, its creator and its expiry."""
    from consumers.console.access.tokens import read_tokens

    now_s = time.time()
    for token in sorted(read_tokens(login_file(file, state, "tokens")[0]).values(), key=lambda each: each.name):
        expiry = datetime.fromtimestamp(token.expires_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
        verb = "expires" if now_s < token.expires_s else "expired"
        typer.echo(f"{token.name} {token.roles}, by {token.created_by}, {verb} {expiry}")


@token_app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The token's name.")], file: TokensFile = None, state: State = None
) -> None:
    """Revoke a token; a running console rejects it at once."""
    from consumers.console.access.tokens import revoke_token

    place, noted = login_file(file, state, "tokens")
    revoke_token(place, name)
    typer.echo(f"{name} is revoked: {place}")
    note(noted, "token", name, "", "revoked")
