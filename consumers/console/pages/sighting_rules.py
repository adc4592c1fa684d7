"""The page of sighting rules: the classes and groups of which users want to be notified, by cameras."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from consumers.console.access.connections import begin_long_answer
from consumers.console.access.gate import session_of
from consumers.console.access.rights import GuardedRoute, Right
from consumers.console.access.sight import Sight
from consumers.console.access.sites import may, require, visible_to
from consumers.console.context import ConsoleContext, unless_away
from consumers.console.pages.outcomes import REMOVED, SAVED, list_routes, outcome_of, sites_of
from consumers.records.rows import UNSURE
from consumers.sightings.rule import DEFAULTS, RANGES, SightingRule
from consumers.sightings.rules_table import (
    LOGGED_AS,
    new_rule,
    read_rules,
    remove_rule,
    save_rule,
    wanted_of,
    words_of,
)
from schemas.camera_groups import parse_group
from schemas.clock import unix_ms


def sighting_rule_routes(context: ConsoleContext) -> list[GuardedRoute]:
    """Return the routes of the page."""
    return list_routes(context, "/sighting-rules", _page, save, remove)


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


async def _page(context: ConsoleContext, request: Request) -> Response:
    sight = visible_to(request)
    found, no_records = await unless_away(listed(context, sight), [])
    sites = sites_of(context, sight)
    return context.page(
        request,
        "sighting_rules.html",
        listed=found,
        no_records=no_records,
        changeable={each.cameras for each in found if may(request, Right.OPERATOR, each.cameras)},
        can_set=any(may(request, Right.OPERATOR, f"{site}/") for site in sites),
        sites=sites,
        names=_names(context, sight),
        defaults=DEFAULTS,
        limits=RANGES,
        outcome=outcome_of(request),
    )


def _names(context: ConsoleContext, sight: Sight) -> list[str]:
    """Return the classes of the live model, and the classes and groups that cameras show now."""
    live = context.models.live if context.models is not None else None
    shown = {name for card in context.fleet.own_cards(sight) for name in (card.verdict, card.group)}
    return sorted({*(live.classes if live is not None else ()), *shown} - {"", UNSURE})
