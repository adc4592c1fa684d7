"""Mutes by a person: no notifications and no counts for a camera or an alert until a time, with a reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from sqlalchemy import Connection
from starlette.requests import Request

from consumers.console.access.connections import begin_long_answer
from consumers.console.access.gate import session_of
from consumers.console.access.refusal import RefusedActionError
from consumers.console.actions.fleet import UNKNOWN
from consumers.console.context import ConsoleContext
from consumers.database.mutes import Mute, end_mute, new_mute, save_mute
from schemas.clock import unix_ms
from schemas.errors import ConfigError

END: Final = "end"
"""Length that ends a mute."""
LENGTHS: Final = {"1h": "1 hour", "8h": "8 hours", "1d": "1 day", "7d": "7 days"}
"""The lengths that the pages offer."""


async def mute(
    context: ConsoleContext, request: Request, sites: Mapping[str, str | None], length: str, reason: str
) -> None:
    """Mute cameras or alerts for a length such as `2h`, or end their mutes, for the user of a request, and log it.

    `sites` maps each alert to its site, and each camera to None. Raises RefusedActionError for wrong values, and
    StateError without the database; nothing is changed then.
    """
    for subject in sites:
        if length != END and "/" in subject and context.fleet.card(subject) is None:
            raise RefusedActionError(UNKNOWN.format(subject), 404)
    who = session_of(request).name
    begin_long_answer(request.scope)
    try:
        made = [] if length == END else [new_mute(each, length, reason, who, unix_ms()) for each in sites]
        await context.change_recorded(partial(_replace, sites, made))
    except ConfigError as error:
        raise RefusedActionError(str(error), 400) from None
    detail = f"{length}: {made[0].reason}" if made else "ended"
    for subject, site in sites.items():
        await context.note(who, "mute", subject, detail, "done", site)


def _replace(subjects: Iterable[str], made: Sequence[Mute], connection: Connection) -> None:
    for each in made:
        save_mute(connection, each)
    for subject in () if made else subjects:
        end_mute(connection, subject)
