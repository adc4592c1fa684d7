"""What our own command line makes of the arguments of a container."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import typer

import infra.cli


def parsed(arguments: Sequence[str]) -> dict[str, Any]:
    """The parameters by their names. Raises click's UsageError for what the command does not know."""
    return _parsed(tuple(arguments))


@functools.cache
def _parsed(arguments: tuple[str, ...]) -> dict[str, Any]:
    infra.cli.register()
    command: Any = typer.main.get_command(infra.cli.app)
    context = command.make_context("pointillist", [arguments[0]], resilient_parsing=True)
    rest = list(arguments)
    while hasattr(command, "get_command"):
        word, *rest = rest
        command = command.get_command(context, word)
        assert command is not None, f"there is no command {word}"
    with command.make_context(arguments[0], rest, parent=context) as made:
        assert made.args == []
        return dict(made.params)
