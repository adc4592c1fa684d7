"""Sighting rules that users set and remove."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from consumers.console.access.connections import begin_long_answer
from consumers.console.access.gate import session_of
from consumers.console.access.sight import Sight
from consumers.console.access.sites import require
from consumers.console.actions.changes import REMOVED, SAVED
from consumers.console.context import ConsoleContext
from consumers.sightings.rule import SightingRule
from consumers.sightings.rules_table import LOGGED_AS, new_rule, read_rules, remove_rule, save_rule, wanted_of, words_of
from schemas.camera_groups import parse_group
from schemas.clock import unix_ms


async def save(context: ConsoleContext, request: Request, fields: Mapping[str, Any]) -> str:
    """Set the rule of some cameras and a class, and log it. Return `SAVED`.

    Raises ConfigError for wrong fields, and StateError without the recorder's database.
    """
    who = session_of(request).name
    require(request, parse_group(fields.get("cameras")))
    rule = new_rule(fields, who, unix_ms())
    begin_long_answer(request.scope)
    await context.change_recorded(lambda each: save_rule(each, rule))
    await context.note(who, LOGGED_AS, rule.cameras, words_of(rule), SAVED)
    return SAVED


async def remove(context: ConsoleContext, request: Request, fields: Mapping[str, Any]) -> str:
    """Remove the rule of some cameras and a class, and log it. Return `REMOVED`.

    Raises ConfigError without such a rule, and StateError without the recorder's database.
    """
    cameras, wanted = parse_group(fields.get("cameras")), wanted_of(fields.get("wanted"))
    require(request, cameras)
    begin_long_answer(request.scope)
    await context.change_recorded(lambda each: remove_rule(each, cameras, wanted))
    await context.note(session_of(request).name, LOGGED_AS, cameras, wanted, REMOVED)
    return REMOVED


async def listed(context: ConsoleContext, sight: Sight) -> list[SightingRule]:
    """Return the rules at these sites. Raises UserError without the recorder's database."""

    return [each for each in await context.read_recorded(read_rules) if sight.sees(each.cameras)]
