"""Shared parts of pages with a form: the submitted fields, the change, and the outcome that the page then shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from consumers.console.access.gate import form_of
from consumers.console.access.rights import GuardedRoute, Right, RightScope
from consumers.console.access.sight import Sight
from consumers.console.actions.changes import Change
from consumers.console.context import ConsoleContext
from schemas.errors import UserError


def list_routes(
    context: ConsoleContext,
    place: str,
    page: Callable[[ConsoleContext, Request], Awaitable[Response]],
    save: Change,
    remove: Change,
    reach: RightScope = RightScope.PART,
) -> list[GuardedRoute]:
    """Return the routes of a page with a list at `place`, and of its forms. `reach` is that of the forms."""
    return [
        GuardedRoute(place, partial(page, context), reach=RightScope.PART),
        GuardedRoute(place, partial(submit, context, place, save), "POST", Right.OPERATOR, reach),
        GuardedRoute(f"{place}/remove", partial(submit, context, place, remove), "POST", Right.OPERATOR, reach),
    ]


async def submit(context: ConsoleContext, place: str, change: Change, request: Request) -> Response:
    """Run `change` with the form. Return to the page with the outcome, or with the reason for an error."""
    return await answer(place, change(context, request, fields_of(request)))


async def answer(place: str, change: Awaitable[str], errors: tuple[type[Exception], ...] = (UserError,)) -> Response:
    """Return to the page at `place` with the outcome of `change`, or with the reason for one of `errors`."""
    try:
        return back(place, await change)
    except errors as error:
        return back(place, str(error), failed=True)


def fields_of(request: Request) -> dict[str, str]:
    """Return the fields of the submitted form without its CSRF token."""
    return {name: value for name, value in form_of(request).items() if name != "csrf"}


def back(place: str, outcome: str, *, failed: bool = False, **selection: str) -> Response:
    """Return to the page at `place`, which shows the outcome. `selection` are further parameters of the page."""
    shown = {**selection, "outcome": outcome} | ({"failed": "yes"} if failed else {})
    return RedirectResponse(f"{place}?{urlencode(shown)}", 303)


class ShownOutcome(NamedTuple):
    """The outcome of a form that a page shows, empty without one."""

    text: str
    failed: bool
    """True if nothing was changed: the form then shows again what was typed."""


def outcome_of(request: Request) -> ShownOutcome:
    """Return the outcome that a page shows."""
    return ShownOutcome(request.query_params.get("outcome", "")[:300], request.query_params.get("failed") == "yes")


def sites_of(context: ConsoleContext, sight: Sight) -> list[str]:
    """Return the sites of this console's own cameras that the reader may see."""
    return sorted({card.site for card in context.fleet.own_cards(sight)})
