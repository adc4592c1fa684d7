"""TOML documents of settings: the file that `up` writes for a role, and the listing that a user reads."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from infra.settings.fields import SettingsField, absent_tables, fields
from infra.settings.roles import prefix_of

_LOGIN: Final = re.compile(r"://.*@")
_PASSWORD: Final = re.compile(r"([?&](?:ssl)?password=)[^&]*")
"""The two places of a password in a database URL. In the login it may contain any character."""
_WIDTH: Final = 110
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def toml(values: Mapping[str, Any]) -> str:
    """Return tables of values as TOML. Values of None are left out."""
    return "\n".join(_lines(values)) + "\n"


def _lines(values: Mapping[str, Any], table: str = "") -> Iterator[str]:
    for name, value in values.items():
        if value is not None and not isinstance(value, Mapping):
            yield f"{_key(name)} = {toml_value(value)}"
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield f"\n[{table}{_key(name)}]"
            yield from _lines(value, f"{table}{_key(name)}.")


def _key(name: str) -> str:
    """Return a key as TOML: a name that people choose may have any character."""
    return name if _BARE.fullmatch(name) else toml_value(name)


def toml_value(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, Mapping):
        entries = [f"{_key(name)} = {toml_value(each)}" for name, each in value.items() if each is not None]
        return f"{{{', '.join(entries)}}}"
    if isinstance(value, SecretStr):
        return toml_value(value.get_secret_value())
    if isinstance(value, bool | int):
        return json.dumps(value)
    if isinstance(value, float):
        return str(value)  # also inf and nan: TOML spells them as Python does
    # JSON escapes are those of a basic string, but for U+007F, which TOML requires to be escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007F")


def listing(settings: BaseModel, role: str) -> str:
    """Return the settings in force as TOML, with the meaning, the type and the variable of each; without passwords."""
    lines = [f"# Settings of the role {role}. Save as a file and pass it by --config FILE."]
    table, absent = "", dict(absent_tables(type(settings)))
    for each in fields(type(settings)):
        inside = each.path.rpartition(".")[0]
        if inside != table:
            table = inside
            is_given = value_at(settings, table) is not None
            lines += ["", *_wrapped(absent.get(table, "")), f"[{table}]" if is_given else f"# [{table}]"]
        lines += ["", *_comment(each, role), _entry(settings, each)]
    return "\n".join(lines) + "\n"


def _comment(each: SettingsField, role: str) -> Iterator[str]:
    kind = each.kind.replace("`", "")
    for text in (each.help, f"Type: {kind}. Variable: {each.variable(prefix_of(role))}"):
        yield from _wrapped(text)


def _wrapped(text: str) -> Iterator[str]:
    return (f"# {line}" for line in textwrap.wrap(text, _WIDTH, break_long_words=False))


def _entry(settings: BaseModel, each: SettingsField) -> str:
    value = value_at(settings, each.path)
    name = each.path.rpartition(".")[2]
    if value is None:
        return f"# {name} ="
    return f"{name} = {toml_value(_public(value))}"


def value_at(settings: BaseModel, path: str) -> Any:
    """Return the value or the table at a path; None inside a table that is None."""
    value: Any = settings.model_dump(warnings=False)  # a partial model has None for a required value
    for name in path.split("."):
        value = value.get(name) if value is not None else None
    return value


def _public(value: Any) -> Any:
    """Return a value without a password in it."""
    if isinstance(value, SecretStr):
        return "**********"
    if isinstance(value, str | Path):
        return _PASSWORD.sub(r"\1***", _LOGIN.sub("://***@", str(value)))
    return value
