"""The output of `--help`, which contains each text unchanged."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from infra.cli import app, register
from tests.infra.command_line import run


def commands(words: tuple[str, ...], command: Any) -> dict[tuple[str, ...], Any]:
    """Return a command and those in it, by the words that call them."""
    found = {words: command}
    for word, each in getattr(command, "commands", {}).items():
        found |= commands((*words, word), each)
    return found


register()
COMMANDS = commands((), typer.main.get_command(app))


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "pointillist")
def test_help_contains_every_docstring_and_option_text(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    shown = run(*words, "--help", COLUMNS="1000").output
    text_shown = " ".join("".join(" " if letter in "│╭╮╰╯─" else letter for letter in shown).split())
    inside = [each for each in getattr(command, "commands", {}).values() if not each.hidden]
    parameters = [each for each in command.params if not each.hidden]
    texts = [command.help, command.epilog, *(each.help for each in parameters)]
    texts += [each.help.partition("\n\n")[0] for each in inside]
    assert [text for text in texts if text and " ".join(text.split()) not in text_shown] == []
