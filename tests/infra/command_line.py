"""Our own command line in this process: a command's parameters, its output and its refusal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any
from unittest.mock import patch

import typer
from typer.testing import CliRunner, Result

import infra.cli
from schemas.errors import UserError


def parsed(arguments: Sequence[str]) -> dict[str, Any]:
    """The parameters by their names, of a role all its settings.

    Raises click's UsageError for an unknown option, and ConfigError for a setting that the role's model refuses.
    """
    # Kubernetes replaces $(NAME) by a variable.
    return _parsed(tuple(re.sub(r"\$\((\w+)\)", r"\1", argument) for argument in arguments))


@cache
def _whole() -> Any:
    """The command with all its groups, which takes a tenth of a second to build."""
    infra.cli.register()
    return typer.main.get_command(infra.cli.app)


def _parsed(arguments: tuple[str, ...]) -> dict[str, Any]:
    command = _whole()
    context = command.make_context("pointillist", [arguments[0]], resilient_parsing=True)
    rest = list(arguments)
    while hasattr(command, "get_command"):
        word, *rest = rest
        command = command.get_command(context, word)
        assert command is not None, f"there is no command {word}"
    with command.make_context(arguments[0], rest, parent=context) as made:
        assert made.args == []
        values = dict(made.params)
        if not hasattr(command, "settings_of"):
            return values
        settings, own = command.settings_of(values)
        return {**settings.model_dump(), **own}


def options_of(name: str) -> set[str]:
    """The options of a command that is in no group."""
    return {option for parameter in _whole().commands[name].params for option in parameter.opts}


def run(*arguments: object, **variables: str) -> Result:
    """Run a command in this process, with these environment variables besides its own.

    Another interpreter would take longer than most tests.
    """
    # It would build the command again for each run.
    with patch("typer.testing._get_command", lambda _: _whole()):
        return CliRunner().invoke(infra.cli.app, [*map(str, arguments)], env=variables)


def refusal(done: Result) -> str:
    """Return the one line of an error with which a command ended, with status 2 and without output."""
    assert isinstance(done.exception, UserError), done.output
    assert (done.exception.exit_code, done.output) == (2, "")
    (line,) = str(done.exception).splitlines()
    return line
