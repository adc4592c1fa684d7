"""Shared parts of pages with a form: the submitted fields, the change, and the outcome that the page then shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from consumers.console.access.gate import form_of
from consumers.console.access.sight import Sight
from consumers.console.context import ConsoleContext, unless_away

Change = Callable[[ConsoleContext, Request, Mapping[str, Any]], Awaitable[str]]
"""A change by the fields of a form or of a JSON object. Returns the outcome, or an error text."""


async def submit(context: ConsoleContext, place: str, change: Change, request: Request) -> Response:
    """Run `change` with the form. Return to the page with the outcome, or with the reason why the database is away."""
    outcome, away = await unless_away(change(context, request, fields_of(request)), "")
    return back(place, outcome or away)


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
