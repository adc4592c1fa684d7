"""One camera's place in a roster: it is opened, tried again where that fails, and let go; others are not touched."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from producers.camera import Camera
from producers.keeping import state_of
from producers.roster.members import Member
from producers.start import Start
from schemas.errors import PointillistError
from schemas.transport.backoff import Backoff

_log = structlog.get_logger()

_RETRY_S: Final = (1.0, 30.0)
_FAREWELL_S: Final = 2.0
_DRAIN_LOOK_S: Final = 0.05
_STARTED: Final = "started.json"

Build = Callable[[Member], Camera]


class Seat:
    """`run` until it is cancelled or the source has ended, then `leave`.

    Where a spool cannot be opened the camera waits for it, ever longer, as it does for a source.
    """

    def __init__(self, member: Member, folder: Path, build: Build, cameras: list[Camera]) -> None:
        """`folder` is that of its spool; while it runs, its camera is one of `cameras`."""
        self.member = member
        self.camera: Camera | None = None
        self._folder = folder
        self._build = build
        self._cameras = cameras
        self._refused = ""

    @property
    def ended(self) -> bool:
        """Whether its source has no more frames, and all of them are confirmed."""
        return self.camera is not None and self.camera.ended and self.camera.spool.drained

    def state(self) -> tuple[str, str]:
        """`refused`, `offline`, `degraded`, `resting`, `ended` or `online`, and why."""
        camera = self.camera
        if camera is None:
            return ("refused", self._refused) if self._refused else ("opening", "")
        state = state_of(camera)
        if camera.trouble:
            return "degraded", camera.trouble
        if state != "online":
            return state, "no connection to the broker" if state == "offline" else camera.publisher.presence.detail
        if camera.ended:
            return "ended", ""
        return ("resting", "its schedule keeps it from sending") if camera.resting else ("online", "")

    async def run(self) -> None:
        """Open the camera and capture until the source ends."""
        backoff = Backoff(*_RETRY_S)
        while self.camera is None:
            try:
                self.camera = self._open()
            except PointillistError as error:
                self._refused = str(error)
            except Exception as error:
                self._refused = type(error).__name__
                _log.exception("camera_failed", camera=self.member.settings.camera_id)
            if self.camera is None:
                await backoff.wait()
        self._refused = ""
        await self.camera.run()

    async def leave(self, drain_s: float, patience_s: float, again: bool = False) -> None:
        """Publish nothing more, wait up to `drain_s` for confirmations, up to `patience_s` for the next, and end.

        The next start goes on where this one was when `again` says that, else a file is sent from its beginning.
        """
        camera = self.camera
        if camera is None:
            return
        try:
            camera.finish()
            if not again:
                with contextlib.suppress(OSError):  # then the next one goes on where this one ended
                    self._start.forget()
            now = time.monotonic()
            end, patience, left = now + drain_s, now + patience_s, camera.spool.frames
            while not camera.spool.drained and now < min(end, patience):
                await asyncio.sleep(_DRAIN_LOOK_S)
                now = time.monotonic()
                if camera.spool.frames != left:
                    patience, left = now + patience_s, camera.spool.frames
        finally:
            self._cameras.remove(camera)
            await camera.close(_FAREWELL_S)

    @property
    def _start(self) -> Start:
        return Start(self._folder / _STARTED, attached=True)

    def _open(self) -> Camera:
        camera = self._build(self.member)
        try:
            started_ms, _ = self._start.first()
            if started_ms is None:
                camera.spool.rewind()
                self._start.note(time.time_ns() // 10**6)
        except BaseException:
            camera.spool.close()
            raise
        self._cameras.append(camera)
        return camera
