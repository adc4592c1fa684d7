"""The output of `--help`, which contains each text unchanged."""

from __future__ import annotations

import pytest

from tests.infra.command_line import commands, run


# Sorted: the order of commands depends on which module was imported first.
@pytest.mark.parametrize("words", sorted(commands()), ids=lambda words: " ".join(words) or "pointillist")
def test_help_contains_every_docstring_and_option_text(words: tuple[str, ...]) -> None:
    command = commands()[words]
    shown = run(*words, "--help", COLUMNS="1000").output
    text_shown = " ".join("".join(" " if letter in "│╭╮╰╯─" else letter for letter in shown).split())
    inside = [each for each in getattr(command, "commands", {}).values() if not each.hidden]
    parameters = [each for each in command.params if not each.hidden]
    texts = [command.help, command.epilog, *(each.help for each in parameters)]
    texts += [each.help.partition("\n\n")[0] for each in inside]
    assert [text for text in texts if text and " ".join(text.split()) not in text_shown] == []
