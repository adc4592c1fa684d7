"""Sighting rules in the recorder's database, and the checks of a new one. The console writes, the recorder reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, delete, func, inspect, select

from consumers.database.engine import upsert
from consumers.database.tables import sighting_rules
from consumers.records.rows import UNSURE
from consumers.sightings.rule import DEFAULTS, RANGES, SightingRule
from schemas.camera_groups import group_of
from schemas.errors import ConfigError

MOST_RULES: Final = 200
LONGEST_NAME: Final = 100
LOGGED_AS: Final = "sighting rule"
"""Name of a change in the audit log."""


def new_rule(fields: Mapping[str, Any], who: str, now_ms: int) -> SightingRule:
    """Return the rule of these fields; an absent number has its default. Raises ConfigError in one line."""
    unknown = fields.keys() - {"cameras", "wanted", *RANGES}
    if unknown:
        expected = f"cameras, wanted, {', '.join(RANGES)}"
        raise ConfigError(f"rule: expected {expected}, got {str(min(unknown))[:40]!r}. Correct it.")
    values = {name: _number(name, fields.get(name, DEFAULTS[name])) for name in RANGES}
    return SightingRule(
        cameras=group_of(fields.get("cameras")),
        wanted=wanted_of(fields.get("wanted")),
        frames=int(values.pop("frames")),
        **values,
        who=who,
        at_ms=now_ms,
    )


def words_of(rule: SightingRule) -> str:
    """Return the class and the numbers of a rule in words, for lists and the audit log."""
    return f"{rule.wanted}: {', '.join(f'{name} {getattr(rule, name):g}' for name in RANGES)}"


def wanted_of(text: object) -> str:
    """Return the name of a class or group. Raises ConfigError for another form, and for `unsure`."""
    name = text.strip() if isinstance(text, str) else ""
    if not name or len(name) > LONGEST_NAME or not name.isprintable() or name == UNSURE:
        raise ConfigError(f"wanted: expected a class or a group, got {str(text)[:80]!r}. Correct it.")
    return name


def _number(name: str, value: Any) -> float:
    least, most = RANGES[name]
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not least <= found <= most or (name == "frames" and found != int(found)):
        kind = " as a whole number" if name == "frames" else ""
        raise ConfigError(f"{name}: expected {least:g} to {most:g}{kind}, got {str(value)[:40]!r}. Correct it.")
    return found


def save_rule(connection: Connection, rule: SightingRule) -> None:
    """Insert a rule, or replace that of its cameras and its class. Raises ConfigError beyond `MOST_RULES`."""
    same = (sighting_rules.c.cameras == rule.cameras) & (sighting_rules.c.wanted == rule.wanted)
    if (connection.scalar(select(func.count()).select_from(sighting_rules).where(~same)) or 0) >= MOST_RULES:
        raise ConfigError(f"rule: expected at most {MOST_RULES}, got more. Remove one first.")
    values = rule._asdict()
    insertion = upsert(connection.engine, sighting_rules).values(values)
    connection.execute(insertion.on_conflict_do_update(index_elements=["cameras", "wanted"], set_=values))


def remove_rule(connection: Connection, cameras: str, wanted: str) -> None:
    """Delete the rule of these cameras and this class. Raises ConfigError if there is none."""
    same = (sighting_rules.c.cameras == cameras) & (sighting_rules.c.wanted == wanted)
    if not connection.execute(delete(sighting_rules).where(same)).rowcount:
        raise ConfigError(f"rule: expected one of the list, got {wanted} at {cameras}. List the rules.")


def read_rules(connection: Connection) -> tuple[SightingRule, ...]:
    """Return all rules, by cameras and class."""
    if not inspect(connection).has_table(sighting_rules.name):  # the recorder makes the table at its start
        return ()
    columns = [sighting_rules.c[name] for name in SightingRule._fields]
    found = connection.execute(select(*columns).order_by(sighting_rules.c.cameras, sighting_rules.c.wanted))
    return tuple(SightingRule(*row) for row in found)
