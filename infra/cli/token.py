"""`pointillist token …`: the API tokens of the console."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from infra.cli import app
from infra.cli.access import State
from infra.cli.audit_line import note
from schemas.errors import ConfigError

token_app = typer.Typer(help="API tokens of the console.", no_args_is_help=True)
app.add_typer(token_app, name="token")

TokensFile = Annotated[Path | None, typer.Option(help="File of the tokens; by default `tokens` in --state.")]


@token_app.callback()
def group() -> None:
    """API tokens of the console. Programs send one as `Authorization: Bearer TOKEN`; a running console follows every
    change."""


@token_app.command()
def create(
    name: Annotated[str, typer.Argument(help="The token's name, which the audit log shows.")],
    role: Annotated[str, typer.Option(help="viewer, operator or admin.")] = "viewer",
    days: Annotated[int, typer.Option(help="Days until it expires, at most 366.")] = 30,
    file: TokensFile = None,
    state: State = None,
) -> None:
    """Create a token and print it. It is stored as a hash: nothing can print it again."""
    from consumers.console.access.owner import owner_name
    from consumers.console.access.rights import Right
    from consumers.console.access.tokens import create_token

    if role not in set(Right):
        raise ConfigError(f"--role: expected {', '.join(Right)}, got {role!r}. Correct it.")
    text = create_token(_place(file, state), name, Right(role), days, owner_name(), time.time())
    _note(state, name, f"{role}, {days} days", "created")
    typer.echo(text)


@token_app.command("list")
def list_tokens(file: TokensFile = None, state: State = None) -> None:
    """Print the tokens, each with its role, its maker and its end."""
    from consumers.console.access.tokens import read_tokens

    now_s = time.time()
    for token in sorted(read_tokens(_place(file, state)).values(), key=lambda each: each.name):
        end = datetime.fromtimestamp(token.expires_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
        verb = "expires" if now_s < token.expires_s else "expired"
        typer.echo(f"{token.name} {token.right}, by {token.maker}, {verb} {end}")


@token_app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The token's name.")], file: TokensFile = None, state: State = None
) -> None:
    """Revoke a token; a running console refuses it at once."""
    from consumers.console.access.tokens import revoke_token

    place = _place(file, state)
    revoke_token(place, name)
    _note(state, name, "", "revoked")
    typer.echo(f"{name} is revoked: {place}")


def _note(state: Path | None, name: str, detail: str, outcome: str) -> None:
    from infra.state_folder import Layout

    if state is not None:
        note(Layout(state.resolve()), "token", name, detail, outcome)


def _place(file: Path | None, state: Path | None) -> Path:
    from infra.state_folder import Layout

    if file is None and state is None:
        raise ConfigError("--file is missing: expected the file of tokens. Give --file FILE or --state DIR.")
    return file or Layout((state or Path()).resolve()).tokens
