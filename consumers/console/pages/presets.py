"""The page of presets: named sets of settings, switches of groups to one, and the cameras that have obeyed."""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from consumers.console.access.rights import EVERYWHERE, GuardedRoute, Right, RightScope
from consumers.console.access.sites import may, visible_to
from consumers.console.actions.presets import SHOWN, listed, remove, save, switch
from consumers.console.context import ConsoleContext
from consumers.console.data.presets import (
    OWN_SETTINGS,
    read_presets,
    words_of,
)
from consumers.console.pages.outcomes import list_routes, outcome_of, sites_of, submit
from schemas.messages.frame import PROFILES

_PLACE: Final = "/presets"


def preset_routes(context: ConsoleContext) -> list[GuardedRoute]:
    """Return the routes of the page."""
    return [
        *list_routes(context, _PLACE, _page, save, remove, RightScope.FLEET),
        GuardedRoute(
            f"{_PLACE}/switch", partial(submit, context, _PLACE, switch), "POST", Right.OPERATOR, RightScope.PART
        ),
    ]


async def _page(context: ConsoleContext, request: Request) -> Response:
    sight = visible_to(request)
    sites = sites_of(context, sight)
    return context.page(
        request,
        "presets.html",
        presets=await context.read(read_presets, context.store.engine),
        words_of=words_of,
        switches=await listed(context, sight),
        shown=SHOWN,
        profiles=sorted(PROFILES),
        own_settings=OWN_SETTINGS,
        sites=sites,
        can_change=may(request, Right.OPERATOR, EVERYWHERE),
        can_switch=any(may(request, Right.OPERATOR, f"{site}/") for site in sites),
        can_send=context.commands is not None,
        outcome=outcome_of(request),
    )
