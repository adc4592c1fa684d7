"""Waiting for the next frame's time, which another rate may bring nearer."""

from __future__ import annotations

import asyncio


class Nap:
    """A sleep of one task that others may end."""

    def __init__(self) -> None:
        self._sleeping: asyncio.Future[None] | None = None

    async def take(self, seconds: float) -> None:
        """Sleep so long, or until `end`."""
        loop = asyncio.get_running_loop()
        self._sleeping = loop.create_future()
        timer = loop.call_later(seconds, self.end)
        try:
            await self._sleeping
        finally:
            timer.cancel()
            self._sleeping = None

    def end(self) -> None:
        """Wake who sleeps, if anyone does."""
        if self._sleeping is not None and not self._sleeping.done():
            self._sleeping.set_result(None)
