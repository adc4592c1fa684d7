"""The options of a benchmark's command."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Option:
    """An option with a help text: its default, or the type of its value if there is no default."""

    value: object
    help: str = ""
    required: bool = False
    several: str | int = ""
    """The number of values, `*` or `+` for any number."""
    choices: Collection[str] | None = None
    positional: bool = False
    """An argument without a flag, with a type."""


def command_line(doc: str | None, *names: str, **options: object) -> argparse.Namespace:
    """Return the options of this process's command, whose help begins with `doc`.

    Each option is given by an `Option`, its default, or the type of its value if it has no default. False is a flag.
    With `names`, the command's arguments are any number of them, and `names` of the result holds those. `command` of
    the result is the command as it was given, for the document of the results.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if names:
        parser.add_argument("names", nargs="*", metavar="NAME", help=f"among {', '.join(names)} (default: all)")
    for name, given in options.items():
        option = given if isinstance(given, Option) else Option(given)
        flag = f"--{name.replace('_', '-')}"
        if option.value is False:
            parser.add_argument(flag, action="store_true", help=option.help)
            continue
        more: dict[str, Any] = {"nargs": option.several} if option.several else {}
        one = option.value[0] if isinstance(option.value, list | tuple) else option.value
        if isinstance(option.value, type):
            more |= {"type": option.value}
        else:
            more |= {"type": type(one), "default": option.value}
        if option.positional:
            parser.add_argument(name, help=option.help, metavar=name.upper(), **more)
            continue
        parser.add_argument(flag, help=option.help, required=option.required, choices=option.choices, **more)
    found = parser.parse_args()
    found.command = _given(getattr(found, "baseline", None))
    if unknown := [name for name in getattr(found, "names", ()) if name not in names]:
        parser.error(f"NAME: expected names among {', '.join(names)}, got {', '.join(unknown)}")
    return found


def _given(checkout: Path | None) -> str:
    """Return this process's command, with `CHECKOUT` for the folder of another checkout."""
    spec = sys.modules["__main__"].__spec__
    module = Path(sys.argv[0]).stem if spec is None else spec.name.removesuffix(".__main__")
    words = (word.rpartition("=") for word in sys.argv[1:])
    given = (f"{name}{equals}{'CHECKOUT' if Path(value) == checkout else value}" for name, equals, value in words)
    return shlex.join(("python", "-m", module, *given))
