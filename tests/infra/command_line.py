"""The command line, run in this process: the parameters of a command, its output and its error."""

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


def parse_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the parameters of a command by name; for a role, all its settings.

    Raises click's UsageError for an unknown option, and ConfigError for a setting that the role's model rejects.
    """
    # Kubernetes replaces $(NAME) by a variable.
    return _parse(tuple(re.sub(r"\$\((\w+)\)", r"\1", argument) for argument in arguments))


@cache
def root_command() -> Any:
    """Return the root command with all its groups. To build it takes a tenth of a second."""
    infra.cli.register()
    return typer.main.get_command(infra.cli.app)


def _parse(arguments: tuple[str, ...]) -> dict[str, Any]:
    command = root_command()
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


@cache
def commands() -> dict[tuple[str, ...], Any]:
    """Return every command and group by the words that call it; the root command by no words."""
    found: dict[tuple[str, ...], Any] = {}

    def add(words: tuple[str, ...], command: Any) -> None:
        found[words] = command
        for word, each in getattr(command, "commands", {}).items():
            add((*words, word), each)

    add((), root_command())
    return found


def options_of(name: str) -> set[str]:
    """Return the options of a command outside the groups."""
    return {option for parameter in root_command().commands[name].params for option in parameter.opts}


def run(*arguments: object, **variables: str) -> Result:
    """Run a command in this process. `variables` are added to the environment.

    To start another interpreter would take longer than most tests.
    """
    # Without the patch, typer would build the command again for each run.
    with patch("typer.testing._get_command", lambda _: root_command()):
        return CliRunner().invoke(infra.cli.app, [*map(str, arguments)], env=variables)


def call(*arguments: object) -> Any:
    """Run a command in this process and return its exit status. Its error is raised, and its output printed."""
    return root_command()([*map(str, arguments)], standalone_mode=False)


def refusal(done: Result) -> str:
    """Return the error line of a command. Assert that it exited with status 2 and printed nothing else."""
    assert isinstance(done.exception, UserError), done.output
    assert (done.exception.exit_code, done.output) == (2, "")
    (line,) = str(done.exception).splitlines()
    return line
