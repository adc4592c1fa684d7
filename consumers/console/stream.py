"""Server-sent events: what a page shows is sent again where it has changed, as soon as the reader has room for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from starlette.responses import Response, StreamingResponse

from consumers.console.fleet import Fleet
from consumers.console.gate import no

MOST_STREAMS: Final = 128
HEARTBEAT_S: Final = 10.0
"""A reader who has gone is noticed when something is written."""

Changed = Callable[[], str | Awaitable[str]]


class Streams:
    """The open streams, bounded in number."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.open = 0

    def answer(self, changed: Changed) -> Response:
        """A stream of what `changed` gives after each change, beginning now; 503 where there are too many."""
        if self.open >= MOST_STREAMS:
            return no(503, f"{MOST_STREAMS} pages are open already")
        return StreamingResponse(self._events(changed), media_type="text/event-stream")

    async def _events(self, changed: Changed) -> AsyncIterator[str]:
        self.open += 1
        try:
            yield ": open\n\n"
            while True:
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
                    yield ": still here\n\n"
        finally:
            self.open -= 1


def message(text: str) -> str:
    """One event."""
    return "".join(f"data: {line}\n" for line in text.splitlines() if line) + "\n"
