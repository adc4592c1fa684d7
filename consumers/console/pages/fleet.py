"""The fleet page: a card for each camera, the worst first, with changes pushed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from consumers.cameras.state import State
from consumers.console.access.error_response import error_response
from consumers.console.access.gate import form_of, session_of
from consumers.console.access.rights import GuardedRoute, Right, RightScope
from consumers.console.access.sight import Sight
from consumers.console.access.sites import require, sight_of
from consumers.console.actions.fleet import forget, query_of
from consumers.console.context import ConsoleContext, pages_for
from consumers.console.data.fleet import Query, View
from consumers.console.data.pictures import REBUILT
from consumers.console.data.stream import Streams
from consumers.console.data.system_watch import Header


def fleet_routes(context: ConsoleContext, streams: Streams) -> list[GuardedRoute]:
    """Return the routes of the page."""
    return [
        GuardedRoute("/", partial(_page, context), reach=RightScope.PART),
        GuardedRoute("/fleet/live", partial(_live, context, streams), reach=RightScope.PART),
        GuardedRoute("/live", partial(_header_live, context, streams), reach=RightScope.PART),
        GuardedRoute("/picture/{site}/{camera}.jpg", partial(_picture, context)),
        GuardedRoute("/picture/{site}/{camera}/{kind}.jpg", partial(_picture, context)),
        GuardedRoute("/fleet/forget", partial(_forget, context), "POST", Right.OPERATOR, RightScope.PART),
    ]


async def _page(context: ConsoleContext, request: Request) -> Response:
    query = query_of(request)
    view = context.fleet.view(query)
    query_string = request.scope["query_string"].decode("latin-1")
    asked = f"?{query_string}" if query_string else ""
    return context.page(request, "fleet.html", query=query, view=view, states=list(State), stream=f"/fleet/live{asked}")


async def _live(context: ConsoleContext, streams: Streams, request: Request) -> Response:
    return streams.answer(request, Changes(context, query_of(request)))


async def _header_live(context: ConsoleContext, streams: Streams, request: Request) -> Response:
    return streams.answer(request, header_changes(context, sight_of(request)))


def header_changes(context: ConsoleContext, sight: Sight) -> Callable[[], str]:
    """Return a function that renders the header's status for a reader of these sites when it has changed."""
    shown: Header | None = None

    def changed() -> str:
        nonlocal shown
        now = context.watch.header(sight)
        if now == shown:
            return ""
        shown = now
        return context.render("header.html", header=now, pages=pages_for(sight), pushed=True)

    return changed


class Changes:
    """The changes that one open fleet page has not received yet."""

    def __init__(self, context: ConsoleContext, query: Query) -> None:
        self._context = context
        self._query = query
        self._version = -1
        self._header = header_changes(context, query.sight)
        self._shown: View | None = None

    def __call__(self) -> str:
        """Return the parts that changed since the last call, each with the id of its place; empty if none did."""
        fleet, header = self._context.fleet, self._header()
        if fleet.version == self._version:
            return header
        self._version = fleet.version
        before, now = self._shown, fleet.view(self._query)
        self._shown = now
        known = {"query": self._query, "view": now, "states": list(State), "pushed": True}
        parts = [header]
        if before is None or _head(before) != _head(now):
            parts.append(self._context.render("summary.html", **known))
        if before is None or _frame(before) != _frame(now):
            parts.append(self._context.render("counts.html", **known))
        if before is None or [card.name for card in before.cards] != [card.name for card in now.cards]:
            parts.append(self._context.render("grid.html", **known))
        else:
            changed = [card for old, card in zip(before.cards, now.cards, strict=True) if old != card]
            parts += [self._context.render("card.html", card=card, pushed=True) for card in changed]
        return "\n".join(part for part in parts if part)


def _head(view: View) -> object:
    return view.known, view.sentence, [(site.name, site.state, site.answered_ms, site.problem) for site in view.away]


def _frame(view: View) -> object:
    return view.counts, view.groups, view.sites, view.found, view.page, view.pages


async def _picture(context: ConsoleContext, request: Request) -> Response:
    asked = request.path_params
    found = context.fleet.picture(f"{asked['site']}/{asked['camera']}", asked.get("kind", REBUILT))
    if found is None:
        return error_response(404, "the picture is missing: none of this camera is in memory")
    # Each picture has its own address, so browsers can cache it, for the present login alone.
    headers = {"cache-control": "private, max-age=60", "vary": "cookie"} if request.scope["query_string"] else {}
    return Response(found.jpeg, media_type="image/jpeg", headers=headers)


async def _forget(context: ConsoleContext, request: Request) -> Response:
    name = form_of(request).get("camera", "")
    require(request, name)
    await forget(context, session_of(request).name, name)
    return RedirectResponse("/", 303)
