"""`--help` with each text as it is written: typer reads `[…]` in it as rich's markup and leaves that out."""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import Any

from typer.core import TyperGroup


class WrittenHelpGroup(TyperGroup):
    """A group that shows its help, and that of every command in it, without reading markup."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        _show_as_written(self)


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
