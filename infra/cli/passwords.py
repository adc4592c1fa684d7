"""Removal of URLs, which may hold passwords, from the process's arguments, which every user of the machine can read.

The place of a password in a URL depends on the camera: before the host, in the query, in the path. Therefore every URL
is removed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping

from infra.local.process import COMMAND
from infra.settings.variable import HIDDEN_URL, PREFIX

_OPTION = re.compile(r"(--[a-z][a-z-]*=)?(.*)", re.DOTALL)
_HIDDEN = re.compile(rf"^(--[a-z][a-z-]*=)?{PREFIX}({HIDDEN_URL}\d+)$")


def hidden(arguments: list[str], taken: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Replace each URL in `arguments` by env:NAME, and return those variables; none of their names is in `taken`."""
    shown: list[str] = []
    variables: dict[str, str] = {}
    number = 0
    for argument in arguments:
        found = _OPTION.fullmatch(argument)
        if "://" not in argument or found is None:
            shown.append(argument)
            continue
        number += 1
        while f"{HIDDEN_URL}{number}" in taken:
            number += 1
        name = f"{HIDDEN_URL}{number}"
        variables[name] = found[2]
        shown.append(f"{found[1] or ''}{PREFIX}{name}")
    return shown, variables


def revealed(arguments: list[str], variables: Mapping[str, str]) -> list[str]:
    """Restore the arguments of `hidden` from the `variables` that it returned."""

    def text(found: re.Match[str]) -> str:
        return f"{found[1] or ''}{variables[found[2]]}" if found[2] in variables else found[0]

    return [_HIDDEN.sub(text, argument) for argument in arguments]


def hide_passwords() -> None:
    """Restart this command without URLs in its arguments if there are any; else put them back in `sys.argv`.

    The system shows the arguments of a process's start, not later changes to them.
    """
    shown, variables = hidden(sys.argv[1:], os.environ)
    if variables:
        os.execve(COMMAND[0], [*COMMAND, *shown], os.environ | variables)
    sys.argv[1:] = revealed(sys.argv[1:], os.environ)
