"""A fairness gate on one event loop: of many frames that are due at once, a few pass before the loop's other work."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

AT_ONCE: Final = 8
"""Frames, each about a millisecond, between two rounds of connections and timers."""


class FairGate:
    """`await enter()` before each frame: at most `at_once` in one round of the loop, the others in their order.

    Without the gate, a loop that has fallen behind would first handle the due frames of ten thousand cameras. By then
    as many frames would be due again, and the loop would read no confirmation and make no connection.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._left = at_once
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._renewing = False

    async def enter(self) -> None:
        """Return when it is this caller's turn."""
        self._renew_soon()
        if self._left and not self._waiting:
            self._left -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    def _renew_soon(self) -> None:
        if not self._renewing:
            self._renewing = True
            asyncio.get_running_loop().call_soon(self._renew)

    def _renew(self) -> None:
        """Open the gate again in the next round of the loop, after the callbacks that were ready before it."""
        self._renewing = False
        self._left = self._at_once
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            if not turn.done():  # its camera was cancelled
                turn.set_result(None)
                self._left -= 1
        if not self._left:
            self._renew_soon()
