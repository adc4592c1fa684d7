"""Shared parts of pages with a form: the submitted fields, the change, and the outcome that the page then shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from consumers.console.access.gate import form_of
from consumers.console.access.refusal import RefusedActionError
from consumers.console.access.rights import GuardedRoute, Right, RightScope
from consumers.console.access.sight import Sight
from consumers.console.context import ConsoleContext
from schemas.errors import UserError

SAVED: Final = "saved"
REMOVED: Final = "removed"

Change = Callable[[ConsoleContext, Request, Mapping[str, Any]], Awaitable[str]]
"""A change by the fields of a form or of a JSON object. Returns the outcome. Raises UserError for wrong fields."""


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
    try:
        outcome = await change(context, request, fields_of(request))
    except UserError as error:
        outcome = str(error)
    return back(place, outcome)


def text_of(fields: Mapping[str, Any], name: str) -> str:
    """Return one text among the submitted values, empty without it. Raises RefusedActionError for any other type."""
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise RefusedActionError(f"{name}: expected a text, got {str(value)[:40]!r}. Correct it.", 400)
    return value


def fields_of(request: Request) -> dict[str, str]:
    """Return the fields of the submitted form without its CSRF token."""
    return {name: value for name, value in form_of(request).items() if name != "csrf"}


def back(place: str, outcome: str, **selection: str) -> Response:
    """Return to the page at `place`, which shows the outcome. `selection` are further parameters of the page."""
    return RedirectResponse(f"{place}?{urlencode({**selection, 'outcome': outcome})}", 303)


def outcome_of(request: Request) -> str:
    """Return the outcome that a page shows."""
    return request.query_params.get("outcome", "")[:300]


def sites_of(context: ConsoleContext, sight: Sight) -> list[str]:
    """Return the sites of this console's own cameras that the reader may see."""
    return sorted({card.site for card in context.fleet.own_cards(sight)})
