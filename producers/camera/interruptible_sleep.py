"""The wait for the next frame, which a new frame rate ends early."""

from __future__ import annotations

import asyncio


class InterruptibleSleep:
    """A sleep of one task that other code may interrupt."""

    def __init__(self) -> None:
        self._sleeping: asyncio.Future[None] | None = None

    async def sleep(self, seconds: float) -> None:
        """Sleep for this many seconds, or until `interrupt`."""
        loop = asyncio.get_running_loop()
        self._sleeping = loop.create_future()
        timer = loop.call_later(seconds, self.interrupt)
        try:
            await self._sleeping
        finally:
            timer.cancel()
            self._sleeping = None

    def interrupt(self) -> None:
        """Wake the sleeping task, if any."""
        if self._sleeping is not None and not self._sleeping.done():
            self._sleeping.set_result(None)
