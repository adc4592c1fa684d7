"""Presets, which are named sets of cameras' settings, in the console's database, and the checks of a new one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Column, Engine, Table, Text, delete, select

from consumers.console.data.commands import changes_of
from consumers.console.data.rate_text import frame_rate
from consumers.database.console_store import metadata
from consumers.database.user_rows import replace_row
from schemas.errors import ConfigError
from schemas.limits import BLOCK_PIXELS
from schemas.messages.frame import PROFILE_NAMES

MOST_PRESETS: Final = 100
OWN_SETTINGS: Final = "own settings"
"""The name of a switch back to the cameras' own settings. No preset has it."""
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9 _.-]{0,38}[a-z0-9])?")

presets = Table(
    "console_presets",
    metadata,
    Column("name", Text, primary_key=True),
    *(Column(name, Text, nullable=False) for name in ("changes", "who")),
    Column("at_ms", BigInteger, nullable=False),
)
"""`changes` is a JSON object of fields of `Command`."""


class Preset(NamedTuple):
    """A named set of settings."""

    name: str
    changes: Mapping[str, Any]
    """Values by the names of `Command`; at least one."""
    who: str
    """The user."""
    at_ms: int
    """Time of the decision, Unix time in milliseconds."""


def new_preset(fields: Mapping[str, Any], who: str, now_ms: int) -> Preset:
    """Return the preset of a `name` and of settings as in `changes_of`; None and empty texts count as absent.

    Raises ConfigError in one line.
    """
    name = preset_name(fields.get("name"))
    if name == OWN_SETTINGS:
        raise ConfigError(f"name: expected another one, got {name!r}, which returns cameras to theirs. Choose another.")
    changes = changes_of({key: each for key, each in fields.items() if key != "name" and each not in ("", None)})
    return Preset(name, changes, who, now_ms)


def preset_name(text: object) -> str:
    """Return the name of a preset. Raises ConfigError for another form."""
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise ConfigError(f"name: expected 1 to 40 of a-z 0-9 _ . - and spaces, got {str(text)[:60]!r}. Correct it.")
    return text


def words_of(changes: Mapping[str, Any]) -> str:
    """Return settings by the names of `Command` in plain words; without any, the cameras' own."""
    return ", ".join(_word(name, value) for name, value in changes.items()) or OWN_SETTINGS


def _word(name: str, value: Any) -> str:
    if name == "dropped_per_block":
        return f"drop ratio {value / BLOCK_PIXELS:.3g}"
    if name == "frames_per_second":
        return frame_rate(value, "frames", digits=4) if value else "own rate"
    if name == "profile":
        return f"profile {PROFILE_NAMES[value]}"
    if name == "enabled":
        return "on" if value else "off"
    return f"{name.replace('_', ' ')} {value:.3g}"


def save_preset(engine: Engine, preset: Preset) -> None:
    """Insert a preset, or replace the one of this name. Raises ConfigError beyond `MOST_PRESETS`."""
    values = preset._asdict() | {"changes": json.dumps(dict(preset.changes))}
    with engine.begin() as connection:
        replace_row(connection, presets, values, MOST_PRESETS, "preset")


def remove_preset(engine: Engine, name: str) -> bool:
    """Delete a preset. Return whether there was one."""
    with engine.begin() as connection:
        return bool(connection.execute(delete(presets).where(presets.c.name == name)).rowcount)


def read_presets(engine: Engine) -> list[Preset]:
    """Return all presets, by name."""
    columns = [presets.c[name] for name in Preset._fields]
    with engine.begin() as connection:
        found = [Preset(*row) for row in connection.execute(select(*columns).order_by(presets.c.name))]
    return [each._replace(changes=json.loads(str(each.changes))) for each in found]
