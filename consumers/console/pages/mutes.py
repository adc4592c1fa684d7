"""Mutes by a person: no notifications and no counts for a camera or an alert until a time, with a reason."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from consumers.console.access.connections import begin_long_answer
from consumers.console.access.gate import session_of
from consumers.console.access.refusal import RefusedActionError
from consumers.console.context import ConsoleContext
from consumers.console.pages.fleet import UNKNOWN
from consumers.database.mutes import end_mute, new_mute, save_mute
from schemas.clock import unix_ms
from schemas.errors import ConfigError

END: Final = "end"
"""Length that ends a mute."""
LENGTHS: Final = {"1h": "1 hour", "8h": "8 hours", "1d": "1 day", "7d": "7 days"}
"""The lengths that the pages offer."""


async def mute(
    context: ConsoleContext, request: Request, subject: str, length: str, reason: str, site: str | None = None
) -> None:
    """Mute a camera or an alert for a length such as `2h`, or end its mute, for the user of a request, and log it.

    `site` is that of an alert. Raises RefusedActionError for wrong values, and StateError without the database.
    """
    if length != END and "/" in subject and context.fleet.card(subject) is None:
        raise RefusedActionError(UNKNOWN.format(subject), 400)
    who = session_of(request).name
    begin_long_answer(request.scope)
    try:
        if length == END:
            await context.change_recorded(lambda each: end_mute(each, subject))
            detail = "ended"
        else:
            made = new_mute(subject, length, reason, who, unix_ms())
            await context.change_recorded(lambda each: save_mute(each, made))
            detail = f"{length}: {made.reason}"
    except ConfigError as error:
        raise RefusedActionError(str(error), 400) from None
    await context.note(who, "mute", subject, detail, "done", site)
