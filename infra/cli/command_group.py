"""The group of all commands: arguments that a command does not accept are one error line, and `--help` shows each text
as it is written."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Any

from pydantic import ValidationError
from typer.core import TyperGroup
from typer.exceptions import Abort, TyperException

from schemas.errors import ConfigError
from schemas.runtime.rejected_values import expectation, received


class CommandGroup(TyperGroup):
    """A group whose errors about arguments are one line.

    Its help, and that of every command in it, has no markup: typer reads `[…]` as that of rich and leaves it out.
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        _show_as_written(self)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command, and end the process unless `standalone_mode` is false: then return its exit status.

        Raises ConfigError for arguments that the command does not accept.
        """
        try:
            status = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except TyperException as error:
            if type(error).__name__ != "NoArgsIsHelpError":  # it has printed the help
                raise ConfigError(_argument_error(error)) from None
            status = error.exit_code
        except Abort:
            raise ConfigError("standard input: expected an answer, got its end. Give the answer, or a file.") from None
        if standalone_mode:
            sys.exit(status or 0)
        return status


def _argument_error(error: Any) -> str:
    """Return the error about the arguments of a command in one line, with what was expected and what came."""
    context, parameter, rejection = error.ctx, getattr(error, "param", None), error.__cause__
    name = ""
    if parameter is not None:
        name = parameter.name.upper() if parameter.param_type_name == "argument" else max(parameter.opts, key=len)
    if isinstance(rejection, ValidationError):
        problem = rejection.errors(include_url=False)[0]
        text = f"{name}: {expectation(problem)}, got {_typed(problem['input'])}"
    elif parameter is not None:
        text = f"{name}: {error.message}" if error.message else f"{name} is missing: expected a value"
    elif error.message.endswith("requires an argument."):
        text = f"{error.option_name}: expected a value, got none"
    elif "does not take a value" in error.message:
        text = f"{error.option_name}: expected no value, got one"
    else:
        text = error.format_message()
    end = "" if text.endswith((".", "?")) else "."
    return f"{text}{end}" + (f" `{context.command_path} --help` shows the options." if context is not None else "")


def _typed(value: object) -> str:
    """Return a value of the command line for a message; a number, which comes as text, without quotes."""
    try:
        float(str(value))
    except ValueError:
        return received(value)
    return str(value)


def _show_as_written(command: Any) -> None:
    command.format_help = partial(_format_help, command)
    for each in getattr(command, "commands", {}).values():
        _show_as_written(each)


def _format_help(command: Any, context: Any, formatter: Any) -> None:
    parameters = [_escaped(each) for each in command.params]  # a role's command imports its settings for these
    shown = _escaped(command)
    shown.params = parameters
    if hasattr(command, "commands"):
        shown.commands = {name: _escaped(each) for name, each in command.commands.items()}
    type(command).format_help(shown, context, formatter)


def _escaped(described: Any) -> Any:
    from rich.markup import escape  # only for `--help`

    shown = copy(described)
    for name in ("help", "epilog"):
        if text := getattr(described, name, None):
            setattr(shown, name, escape(text))
    return shown
