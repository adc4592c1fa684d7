"""Long responses, streams and exports: limited in total and for each user, and sent in chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from consumers.console.access.connections import begin_long_answer
from consumers.console.access.error_response import error_response
from consumers.console.access.gate import session_of

PIECE: Final = 2**16
"""Chunk size in bytes. A stalled reader is noticed after one chunk."""


class ResponseSlots:
    """The slots of one kind of long response."""

    def __init__(self, what: str, *, most: int, most_of_user: int, patience_s: float) -> None:
        """Set the limits.

        `what` names the kind in refusals ("streams"); `patience_s` is the maximum duration in seconds.
        """
        self.patience_s = patience_s
        self._what = what
        self._most = most
        self._most_of_user = most_of_user
        self._of_user: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """Number of occupied slots."""
        return self._of_user.total()

    def answer(
        self,
        request: Request,
        content: AsyncIterator[str] | Iterator[bytes],
        media_type: str,
        headers: Mapping[str, str] | None = None,
        holds: Callable[[], bool] = lambda: True,
    ) -> Response:
        """Send `content`, and end the connection before its next chunk once `holds` returns False.

        Return 429 if the user has too many responses of this kind, 503 if all users together have.
        """
        return _LongAnswer(self, session_of(request).name, content, media_type, headers, holds)

    def enter(self, user: str) -> Response | None:
        """Occupy a slot, or return the refusal."""
        if self.taken >= self._most:
            return error_response(503, f"{self._what}: expected at most {self._most} at once. Try again later.")
        if self._of_user[user] >= self._most_of_user:
            return error_response(
                429, f"{self._what}: expected at most {self._most_of_user} at once for a user. Close one."
            )
        self._of_user[user] += 1
        return None

    def leave(self, user: str) -> None:
        """Release a slot."""
        self._of_user[user] -= 1
        if not self._of_user[user]:
            del self._of_user[user]


class _LongAnswer(StreamingResponse):
    """One response, which occupies its slot when it begins."""

    def __init__(
        self,
        places: ResponseSlots,
        user: str,
        content: AsyncIterator[str] | Iterator[bytes],
        media_type: str,
        headers: Mapping[str, str] | None,
        holds: Callable[[], bool],
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._places = places
        self._user = user
        self._holds = holds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response within the limits."""
        refusal = self._places.enter(self._user)
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def send_pieces(message: Message) -> None:
            if not self._holds():
                raise ClientDisconnect
            body = memoryview(message.get("body", b""))
            for start in range(0, len(body) - PIECE, PIECE):
                piece = bytes(body[start : start + PIECE])
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            if len(body) > PIECE:
                message = {**message, "body": bytes(body[(len(body) - 1) // PIECE * PIECE :])}
            await send(message)

        begin_long_answer(scope, self._places.patience_s)
        try:
            await super().__call__(scope, receive, send_pieces)
        finally:
            self._places.leave(self._user)
