"""The page of sighting rules: the classes and groups of which users want to be notified, by cameras."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from consumers.console.access.rights import GuardedRoute, Right
from consumers.console.access.sight import Sight
from consumers.console.access.sites import may, visible_to
from consumers.console.actions.sighting_rules import listed, remove, save
from consumers.console.context import ConsoleContext, unless_away
from consumers.console.pages.outcomes import list_routes, outcome_of, sites_of
from consumers.records.rows import UNSURE
from consumers.sightings.rule import DEFAULTS, RANGES


def sighting_rule_routes(context: ConsoleContext) -> list[GuardedRoute]:
    """Return the routes of the page."""
    return list_routes(context, "/sighting-rules", _page, save, remove)


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
