"""The selection of cameras in a request, and the removal of a camera from the fleet."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from consumers.cameras.state import GONE, State
from consumers.console.access.refusal import RefusedActionError
from consumers.console.access.sites import sight_of
from consumers.console.context import ConsoleContext
from consumers.console.data.cards import AWAY
from consumers.console.data.fleet import Query
from schemas.clock import monotonic_ms

UNKNOWN: Final = "camera: expected one of this fleet, got {}"
"""The refusal of a camera without a card."""
_LONGEST: Final = 200


def page_of(request: Request) -> int:
    """Return the number of the page in the request; 1 for an invalid one."""
    page = request.query_params.get("page", "1")
    return int(page) if page.isascii() and page.isdecimal() and len(page) < 8 else 1


def query_of(request: Request) -> Query:
    """Return the selection in the request, among the cameras of the person's sites. Invalid values are ignored."""
    asked = request.query_params
    state = asked.get("state", "")
    return Query(
        site=asked.get("site", "")[:_LONGEST],
        state=state if state in {*State, AWAY} else "",
        text=asked.get("text", "").strip()[:_LONGEST],
        group=asked.get("group", "")[:_LONGEST],
        page=page_of(request),
        sight=sight_of(request),
    )


async def forget(context: ConsoleContext, who: str, name: str) -> None:
    """Remove a camera from the fleet. Raises RefusedActionError: 404 if it is unknown, 409 if it is not gone."""
    card = context.fleet.card(name)
    if card is None:
        raise RefusedActionError(UNKNOWN.format(name), 404)
    if card.state not in GONE or card.frames_per_second:
        raise RefusedActionError(f"{name}: expected a camera that is gone, it is {card.state.value}", 409)
    at_ms = await context.write(context.store.forget, name)
    context.fleet.forget(name, at_ms)
    context.fleet.tick(monotonic_ms())
    await context.note(who, "forget", name, "", "done")
