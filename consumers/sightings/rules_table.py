"""Sighting rules in the recorder's database, and the checks of a new one. The console writes, the recorder reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, delete, inspect, select

from consumers.database.tables import sighting_rules
from consumers.database.user_rows import number_in, of_site, replace_row
from consumers.records.rows import UNSURE
from consumers.sightings.rule import DEFAULTS, RANGES, SightingRule
from schemas.camera_groups import parse_group
from schemas.errors import ConfigError

MOST_RULES: Final = 200
"""Maximum number of rules for a site."""
LONGEST_NAME: Final = 100
LOGGED_AS: Final = "sighting rule"
"""Name of a change in the audit log."""


def new_rule(fields: Mapping[str, Any], who: str, now_ms: int) -> SightingRule:
    """Return the rule of these fields; an absent number has its default. Raises ConfigError in one line."""
    given = {name: fields.get(name, DEFAULTS[name]) for name in RANGES}
    values = {name: number_in(name, given[name], *RANGES[name], is_whole=name == "frames") for name in RANGES}
    return SightingRule(
        cameras=parse_group(fields.get("cameras")),
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


def save_rule(connection: Connection, rule: SightingRule) -> None:
    """Insert a rule, or replace that of its cameras and its class. Raises ConfigError beyond `MOST_RULES`."""
    at_site = of_site(sighting_rules.c.cameras, rule.cameras)
    replace_row(connection, sighting_rules, rule._asdict(), MOST_RULES, "rule", at_site)


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
