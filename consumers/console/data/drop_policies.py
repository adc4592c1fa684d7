"""Drop policies in the console's database, and the checks of a new one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Engine, Float, Table, Text, delete, select

from consumers.console.data.drop_policy import DropPolicy
from consumers.database.console_store import metadata
from consumers.database.user_rows import number_in, of_site, replace_row
from schemas.camera_groups import parse_group
from schemas.errors import ConfigError
from schemas.limits import MAX_DROP_RATIO

MOST_POLICIES: Final = 200
"""Maximum number of policies for a site."""
DEFAULTS: Final[Mapping[str, float | None]] = {
    "evidence": 0.5, "accuracy": None, "waiting_s": 30.0, "least_s": 120.0, "calm_s": 600.0,
}  # fmt: skip
"""Values of fields that are absent."""
RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "lowest": (0.0, MAX_DROP_RATIO),
    "highest": (0.0, MAX_DROP_RATIO),
    "evidence": (0.05, 1.0),
    "accuracy": (0.05, 0.95),
    "waiting_s": (1.0, 86_400.0),
    "least_s": (30.0, 86_400.0),
    "calm_s": (60.0, 604_800.0),
}
OPTIONAL: Final = ("evidence", "accuracy", "waiting_s")
"""Inputs that a policy may ignore."""

drop_policies = Table(
    "console_drop_policies",
    metadata,
    Column("cameras", Text, primary_key=True),
    *(Column(name, Float, nullable=name in OPTIONAL) for name in RANGES),
    Column("who", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)
"""One policy for each group of cameras. NULL ignores an input."""


def new_policy(fields: Mapping[str, Any], who: str, now_ms: int) -> DropPolicy:
    """Return the policy of these fields. An absent input has its default, None or an empty text ignores it.

    Raises ConfigError in one line.
    """
    cameras = parse_group(fields.get("cameras"))
    values = {name: _value(name, fields.get(name, DEFAULTS.get(name))) for name in RANGES}
    made = DropPolicy(cameras=cameras, **values, who=who, at_ms=now_ms)  # type: ignore[arg-type]  # only inputs are None
    lowest, highest = made.bounds
    if lowest >= highest:
        raise ConfigError(f"highest: expected more than lowest, got {made.highest:g} and {made.lowest:g}. Correct one.")
    if all(values[name] is None for name in OPTIONAL):
        raise ConfigError(f"policy: expected at least one of {', '.join(OPTIONAL)}, got none. Set one.")
    return made


def _value(name: str, value: Any) -> float | None:
    if name in OPTIONAL and (value is None or value == ""):
        return None
    return number_in(name, value, *RANGES[name])


def save_policy(engine: Engine, policy: DropPolicy) -> None:
    """Insert a policy, or replace the group's earlier one. Raises ConfigError beyond `MOST_POLICIES`."""
    with engine.begin() as connection:
        at_site = of_site(drop_policies.c.cameras, policy.cameras)
        replace_row(connection, drop_policies, policy._asdict(), MOST_POLICIES, "policy", at_site)


def remove_policy(engine: Engine, cameras: str) -> bool:
    """Delete the policy of a group. Return whether there was one."""
    with engine.begin() as connection:
        return bool(connection.execute(delete(drop_policies).where(drop_policies.c.cameras == cameras)).rowcount)


def read_policies(engine: Engine) -> tuple[DropPolicy, ...]:
    """Return all policies, by group."""
    columns = [drop_policies.c[name] for name in DropPolicy._fields]
    with engine.begin() as connection:
        return tuple(DropPolicy(*row) for row in connection.execute(select(*columns).order_by(drop_policies.c.cameras)))
