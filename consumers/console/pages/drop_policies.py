"""The page of drop policies: the group, the bounds and the thresholds of each, and how many cameras it has raised."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from consumers.console.access.rights import GuardedRoute, Right
from consumers.console.access.sites import may, visible_to
from consumers.console.actions.drop_policies import listed, remove, save
from consumers.console.context import ConsoleContext
from consumers.console.data.drop_policies import (
    DEFAULTS,
    RANGES,
)
from consumers.console.pages.outcomes import list_routes, outcome_of, sites_of


def policy_routes(context: ConsoleContext) -> list[GuardedRoute]:
    """Return the routes of the page."""
    return list_routes(context, "/drop-policies", _page, save, remove)


async def _page(context: ConsoleContext, request: Request) -> Response:
    sight = visible_to(request)
    sites = sites_of(context, sight)
    return context.page(
        request,
        "drop_policies.html",
        listed=listed(context, sight),
        changeable={each.cameras for each in context.drop_plan.policies if may(request, Right.OPERATOR, each.cameras)},
        can_set=any(may(request, Right.OPERATOR, f"{site}/") for site in sites),
        sites=sites,
        defaults=DEFAULTS,
        limits=RANGES,
        can_send=context.commands is not None,
        outcome=outcome_of(request),
    )
