"""Drop policies that users set and remove, and the counts of their cameras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from consumers.console.access.gate import session_of
from consumers.console.access.sight import Sight
from consumers.console.access.sites import require
from consumers.console.actions.changes import REMOVED, SAVED
from consumers.console.context import ConsoleContext
from consumers.console.data.drop_plan import GroupCounts
from consumers.console.data.drop_policies import RANGES, new_policy, read_policies, remove_policy, save_policy
from consumers.console.data.drop_policy import DropPolicy
from schemas.camera_groups import parse_group
from schemas.clock import unix_ms
from schemas.errors import ConfigError


@dataclass(frozen=True)
class PolicyRow:
    """A policy with the counts of its cameras."""

    policy: DropPolicy
    counts: GroupCounts


def listed(context: ConsoleContext, sight: Sight) -> list[PolicyRow]:
    """Return the policies at these sites, by group."""
    counts = context.drop_plan.counts()
    return [PolicyRow(each, counts[each.cameras]) for each in context.drop_plan.policies if sight.sees(each.cameras)]


async def save(context: ConsoleContext, request: Request, fields: Mapping[str, Any]) -> str:
    """Set the policy of a group, and log it. Return `SAVED`. Raises ConfigError for wrong fields."""
    who = session_of(request).name
    require(request, parse_group(fields.get("cameras")))
    made = new_policy(fields, who, unix_ms())
    await context.write(save_policy, context.store.engine, made)
    values = {name: getattr(made, name) for name in RANGES}
    detail = ", ".join(f"{name} {'off' if value is None else format(value, 'g')}" for name, value in values.items())
    await _logged(context, who, made.cameras, detail, SAVED)
    return SAVED


async def remove(context: ConsoleContext, request: Request, fields: Mapping[str, Any]) -> str:
    """Remove the policy of a group, and log it. Return `REMOVED`. Raises ConfigError without such a policy."""
    group = parse_group(fields.get("cameras"))
    require(request, group)
    if not await context.write(remove_policy, context.store.engine, group):
        raise ConfigError(f"policy: expected a group with a policy, got {group}. List the policies.")
    await _logged(context, session_of(request).name, group, "", REMOVED)
    return REMOVED


async def _logged(context: ConsoleContext, who: str, group: str, detail: str, outcome: str) -> None:
    context.drop_plan.adopt(await context.read(read_policies, context.store.engine))
    await context.note(who, "drop policy", group, detail, outcome)
