"""The reference of the command line, from its parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final, get_args, get_origin

import typer

from infra.cli import VARIABLES, app, register
from infra.reference.markdown import code, page, paragraphs, table
from infra.settings.described import kind_of, paragraph, without_none

_HEAD: Final = """\
An error that you can correct is one line on standard error, with exit status 2. The other
[exit statuses](exit-statuses.md) have a table. `--help` of each command prints its part of
this page.
"""
_VARIABLES: Final = """\
Pass secrets in variables: every user of a machine can read arguments. `NAME(_FILE)` means that `NAME_FILE` may name a
file that holds the value.
"""
_COLUMNS: Final = ("option", "value", "default", "variable", "meaning")
_VARIABLE: Final = re.compile(r"\s*(POINTILLIST_\w+(?:\(_FILE\)|=1)?) sets it too\.?")


def command_line() -> str:
    """Return the page: every command and option that is not hidden."""
    register()
    root = typer.main.get_command(app)
    variables = [(code(names.replace(", ", "`, `")), meaning) for names, meaning in VARIABLES.items()]
    return page(
        "The command line",
        _HEAD,
        table(("command", "what it does"), _overview("pointillist", root)),
        "## Before the command: `pointillist OPTION… COMMAND`",
        *_sections("pointillist", root, 1),
        "## Variables of the environment",
        _VARIABLES,
        table(("variable", "meaning"), variables),
    )


def _overview(name: str, command: Any) -> Iterator[tuple[str, str]]:
    for word, each in _inside(command):
        full = f"{name} {word}"
        if getattr(each, "commands", {}):
            yield from _overview(full, each)
        else:
            yield f"[`{full}`](#{full.replace(' ', '-')})", paragraph(each.help)


def _inside(command: Any) -> list[tuple[str, Any]]:
    """Return the commands of a group; nested groups come last."""
    found = [item for item in getattr(command, "commands", {}).items() if not item[1].hidden]
    return sorted(found, key=lambda item: (hasattr(item[1], "commands"), item[0]))


def _sections(name: str, command: Any, level: int) -> Iterator[str]:
    if level > 1:
        yield f"{'#' * min(level, 4)} `{name}`"
        yield paragraphs(command.help)
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [
        each for each in command.params
        if each.param_type_name == "option" and not each.hidden and each.name != "help"
    ]  # fmt: skip
    yield table(("argument", "value", "meaning"), (_argument(each) for each in arguments))
    said = [_option(each) for each in options]
    # An empty column helps no reader.
    kept = [number for number, name in enumerate(_COLUMNS) if name != "variable" or any(row[number] for row in said)]
    yield table([_COLUMNS[number] for number in kept], ([row[number] for number in kept] for row in said))
    for word, each in _inside(command):
        yield from _sections(f"{name} {word}", each, level + 1)


def _argument(parameter: Any) -> tuple[str, str, str]:
    shown = (parameter.metavar or parameter.name.upper()) + ("…" if parameter.nargs == -1 else "")
    return code(shown if parameter.required else f"[{shown}]"), _value(parameter), _text(parameter.help)


def _option(parameter: Any) -> tuple[str, ...]:
    names = ", ".join(code(each) for each in (*parameter.opts, *parameter.secondary_opts))
    said = parameter.help or ""
    variable = _VARIABLE.search(said)
    meaning = _VARIABLE.sub("", said) + (" Can be given again." * (parameter.multiple and "given again" not in said))
    return (
        names,
        "" if parameter.is_flag else _value(parameter),
        _default(parameter),
        code(variable[1]) if variable else "",
        _text(meaning),
    )


def _value(parameter: Any) -> str:
    if parameter.metavar and parameter.param_type_name == "option":
        return code(parameter.metavar)
    annotation = without_none(parameter.type_descriptor.annotation)
    if get_origin(annotation) is list:
        annotation = get_args(annotation)[0]
    ends = [f"{sign} {end:g}" for sign, end in (("≥", parameter.min), ("≤", parameter.max)) if end is not None]
    return " ".join(filter(None, (kind_of(annotation), ", ".join(ends))))


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return code(parameter.show_default)
    if parameter.is_flag and parameter.secondary_opts and value is not None:
        return code((parameter.opts if value else parameter.secondary_opts)[0])
    if value is None or value is False or value in ("", [], ()):
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(code(each) for each in value)
    return code(value.value if isinstance(value, Enum) else f"{value:g}" if isinstance(value, float) else value)


def _text(text: str | None) -> str:
    # Markdown would read angle brackets as a tag.
    return re.sub(r"<(?=\w)", "&lt;", " ".join((text or "").split()))
