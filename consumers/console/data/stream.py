"""Server-sent events: a changed part of a page is sent again as soon as the reader can receive it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from consumers.console.access.gate import session_of
from consumers.console.access.sessions import Session, Sessions
from consumers.console.data.fleet import Fleet
from consumers.console.long_answers import ResponseSlots

MOST_STREAMS: Final = 128
MOST_OF_USER: Final = 8
"""Streams of one user at once. Without logins only `MOST_STREAMS` applies."""
HEARTBEAT_S: Final = 10.0
"""Interval of heartbeats in seconds: a write detects a reader who has left."""
HEARTBEAT: Final = "event: alive\ndata:\n\n"
"""A message, not a comment: a page that gets none for long knows that its stream is broken."""

Changed = Callable[[], str | Awaitable[str]]


class Streams:
    """The open streams, limited in total and for each user."""

    def __init__(self, fleet: Fleet, sessions: Sessions) -> None:
        self._fleet = fleet
        self._sessions = sessions
        self._places = ResponseSlots(
            "streams",
            most=MOST_STREAMS,
            most_of_user=MOST_OF_USER if sessions.visitor is None else MOST_STREAMS,
            patience_s=math.inf,
        )

    def answer(self, request: Request, changed: Changed) -> Response:
        """Stream the result of `changed` now and after each change.

        The stream ends at the next change or heartbeat after its session has ended.
        """
        return self._places.answer(request, self._events(session_of(request), changed), "text/event-stream")

    async def _events(self, session: Session, changed: Changed) -> AsyncIterator[str]:
        yield f"event: session\ndata: {session.mark}\n\n"
        while self._sessions.holds(session):
            # Fetched before the check: a change during the check then ends the wait at once.
            stirred = self._fleet.changed
            found = changed()
            text = await found if isinstance(found, Awaitable) else found
            if text:
                yield message(text)
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await stirred.wait()
            except TimeoutError:
                if self._sessions.holds(session):
                    yield HEARTBEAT


def message(text: str) -> str:
    """Return the text as one event."""
    return "".join(f"data: {line}\n" for line in text.splitlines() if line) + "\n"
