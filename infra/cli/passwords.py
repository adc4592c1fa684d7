"""Keeps passwords in URLs out of the process's arguments, where every user of the machine could read them."""

from __future__ import annotations

import os
import re
import sys

_WITH_PASSWORD = re.compile(r"^(--[a-z-]+=)?([a-z][a-z0-9+.-]*://[^/@\s]*:[^/@\s]*@.*)$", re.IGNORECASE)
_PREFIX = "env:"


def hidden(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """`arguments` with each URL that holds a password replaced by env:NAME, and those variables."""
    shown: list[str] = []
    variables: dict[str, str] = {}
    for argument in arguments:
        found = _WITH_PASSWORD.match(argument)
        if found is None:
            shown.append(argument)
            continue
        name = f"POINTILLIST_URL_{len(variables) + 1}"
        variables[name] = found[2]
        shown.append(f"{found[1] or ''}{_PREFIX}{name}")
    return shown, variables


def hide_passwords() -> None:
    """Start this very command again without passwords in its arguments, if there are any."""
    shown, variables = hidden(sys.argv[1:])
    if variables:
        os.execve(sys.executable, [sys.executable, "-m", "infra.cli", *shown], os.environ | variables)


def resolve(text: str) -> str:
    """The URL behind env:NAME; any other text is itself."""
    if text.startswith(_PREFIX):
        return os.environ.get(text.removeprefix(_PREFIX), text)
    return text
