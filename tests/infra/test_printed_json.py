"""JSON that commands print: readable names, and no character that stdout lacks or that acts on a terminal."""

from __future__ import annotations

import io
import json
import sys

import pytest

from infra.cli.terminal import print_json

DOCUMENT = {"Königsallee": ["門", "two\nlines"], "acts": "\x1b[31m \x9b31m \u202e \U000e0001", "share": 0.5}


def printed(monkeypatch: pytest.MonkeyPatch, encoding: str) -> str:
    """Return what is printed on a stdout of that encoding."""
    written = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
        print_json(DOCUMENT)
        sys.stdout.flush()
        return written.getvalue().decode(encoding)


@pytest.mark.parametrize(("encoding", "is_readable"), [("utf-8", True), ("ascii", False), ("latin-1", False)])
def test_names_stay_readable_where_stdout_has_their_characters(
    monkeypatch: pytest.MonkeyPatch, encoding: str, is_readable: bool
) -> None:
    text = printed(monkeypatch, encoding)
    assert json.loads(text) == DOCUMENT
    assert ("Königsallee" in text, "門" in text) == (is_readable, is_readable)
    assert text.isascii() is not is_readable


def test_characters_that_act_on_a_terminal_are_escaped_and_the_text_has_no_colours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = printed(monkeypatch, "utf-8")
    assert all(each.isprintable() for each in text.splitlines())
    assert r"\u001b[31m \u009b31m \u202e \udb40\udc01" in text
