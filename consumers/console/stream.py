"""Server-sent events: what a page shows is sent again where it has changed, as soon as the reader has room for it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from consumers.console.fleet import Fleet
from consumers.console.gate import session_of
from consumers.console.long_answers import Places
from consumers.console.sessions import Session, Sessions

MOST_STREAMS: Final = 128
MOST_OF_USER: Final = 8
"""Streams of one user. Where nobody logs in, only `MOST_STREAMS` holds."""
HEARTBEAT_S: Final = 10.0
"""A reader who has gone is noticed when something is written."""

Changed = Callable[[], str | Awaitable[str]]


class Streams:
    """The open streams, bounded in all and for each user."""

    def __init__(self, fleet: Fleet, sessions: Sessions) -> None:
        self._fleet = fleet
        self._sessions = sessions
        self._places = Places(
            "streams",
            most=MOST_STREAMS,
            most_of_user=MOST_OF_USER if sessions.local is None else MOST_STREAMS,
            patience_s=math.inf,
        )

    def answer(self, request: Request, changed: Changed) -> Response:
        """Stream what `changed` returns now and after each change.

        The stream ends when the session of `request` has ended, at the next change or heartbeat.
        """
        return self._places.answer(request, self._events(session_of(request), changed), "text/event-stream")

    async def _events(self, session: Session, changed: Changed) -> AsyncIterator[str]:
        yield ": open\n\n"
        while self._sessions.holds(session):
            # Taken before looking: what changes meanwhile is seen the next time.
            stirred = self._fleet.stirred
            found = changed()
            text = await found if isinstance(found, Awaitable) else found
            if text:
                yield message(text)
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await stirred.wait()
            except TimeoutError:
                if self._sessions.holds(session):
                    yield ": still here\n\n"


def message(text: str) -> str:
    """One event."""
    return "".join(f"data: {line}\n" for line in text.splitlines() if line) + "\n"
