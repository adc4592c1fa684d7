"""Connections to the pages, bounded in number and time: whoever opens many and says little displaces only himself."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS: Final = 256
"""Well above what one look accepts, so that a request that has come is read before its connection can be in the way."""
REQUEST_S: Final = 5.0
"""From its opening, or from the last answer, to the end of the next request's head."""
ANSWER_S: Final = 10.0
"""For an answer to be made and read."""
LONG_S: Final = 600.0
"""For an export."""
_LOOK_S: Final = 1.0


_STREAMS: Final = "/live"
"""How the paths of streams end, which go on as long as somebody reads; `consumers.console.stream` bounds them."""


class Visitors:
    """The open connections, the oldest first, and how they fared: answered, crowded, late or misdirected."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._open: dict[Visitor, None] = {}

    def enter(self, visitor: Visitor) -> None:
        """Let one in; beyond the bound the one goes that has waited longest without a request, or this one itself."""
        self._open[visitor] = None
        if len(self._open) > MAX_CONNECTIONS:
            waiting = next(each for each in self._open if not each.is_answered or each is visitor)
            self.send_away(waiting, "crowded")

    def send_away(self, visitor: Visitor, why: str) -> None:
        """Close a connection at once."""
        self.counts[why] += 1
        self.leave(visitor)
        visitor.transport.abort()

    def leave(self, visitor: Visitor) -> None:
        """A connection has ended."""
        self._open.pop(visitor, None)


VISITORS: Final = Visitors()
"""Of this process: uvicorn makes the protocols itself."""


class Visitor(H11Protocol):
    """One connection, with a time limit on each request and on each answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Open."""
        super().connection_made(transport)
        self._since_s = self.loop.time()
        self._look: asyncio.TimerHandle = self.loop.call_later(_LOOK_S, self._look_at_clock)
        VISITORS.enter(self)

    @property
    def is_answered(self) -> bool:
        """Whether a request of it has come whole, and its answer is not yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def _patience_s(self) -> float:
        path: str = self.scope["path"] if self.scope else ""
        if path.endswith(_STREAMS):
            return math.inf
        return LONG_S if "/export" in path else ANSWER_S

    def _look_at_clock(self) -> None:
        if self.loop.time() - self._since_s > (self._patience_s() if self.is_answered else REQUEST_S):
            VISITORS.send_away(self, "late")
        else:
            self._look = self.loop.call_later(_LOOK_S, self._look_at_clock)

    def on_response_complete(self) -> None:
        """The next request may come."""
        VISITORS.counts["answered"] += 1
        self._since_s = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed, by whomever."""
        self._look.cancel()
        VISITORS.leave(self)
        super().connection_lost(exc)
