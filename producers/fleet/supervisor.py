"""One camera's task in a fleet: open, retry, capture, drain, close. It does not affect the other cameras."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from producers.camera.camera import Camera
from producers.fleet.camera_spec import CameraSpec
from producers.fleet.first_start import DamagedStartError, Start
from producers.spool.folder import read_ahead
from schemas.clock import unix_ms
from schemas.errors import PointillistError, StateError
from schemas.runtime.daemon_thread import run_in_daemon_thread
from schemas.transport.backoff import Backoff
from schemas.waiting import cancel

_log = structlog.get_logger()

_RETRY_S: Final = (1.0, 30.0)
_CLOSE_S: Final = 2.0
_STARTED: Final = "started.json"

Build = Callable[[CameraSpec], Camera]


class TaskPhase(StrEnum):
    """The phase of a camera's task in this process. It is not the camera's state, which the recorder computes."""

    OPENING = "opening"
    """The spool is not open yet."""
    CAPTURING = "capturing"
    """The camera is connected, and reads its source unless its schedule or a command pauses it."""
    FAILING = "failing"
    """The enrolment, spool or source fails and is retried, or frames are rejected."""
    DISCONNECTED = "disconnected"
    """The camera captures into its spool without a connection to the broker."""
    DRAINING = "draining"
    """The capture has ended, and some frames are unconfirmed."""
    ENDED = "ended"
    """The capture has ended, and all frames are confirmed."""


class CameraSupervisor:
    """Runs one camera: `start` or `open`, later `cancel`, `finish` and `close`.

    A spool that cannot be opened is retried with exponential backoff, as a source is.
    """

    def __init__(self, spec: CameraSpec, folder: Path, build: Build, *, marks_start: bool) -> None:
        """`folder` is the folder of the spool. With `marks_start`, a file there distinguishes a restart from the first
        start."""
        self.spec = spec
        self.camera: Camera | None = None
        self._folder = folder
        self._start = Start(folder / _STARTED) if marks_start else None
        self._build = build
        self._task: asyncio.Task[None] | None = None
        self._failure = ""

    @property
    def done(self) -> bool:
        """Whether the source has ended."""
        return self._task is not None and self._task.done()

    def phase(self) -> tuple[TaskPhase, str]:
        """Return the phase and its reason, which is empty when everything is well."""
        camera = self.camera
        if camera is None:
            return (TaskPhase.FAILING, self._failure) if self._failure else (TaskPhase.OPENING, "")
        if camera.trouble:
            return TaskPhase.FAILING, camera.trouble
        if not camera.publisher.link.up:
            return TaskPhase.DISCONNECTED, "no connection to the broker"
        if camera.publisher.presence.degraded:
            return TaskPhase.FAILING, camera.publisher.presence.detail
        if camera.ended:
            return (TaskPhase.ENDED if camera.spool.drained else TaskPhase.DRAINING), ""
        return TaskPhase.CAPTURING, camera.publisher.presence.pauses

    def open(self) -> Camera:
        """Open the camera's spool; `StateError` when it cannot be read or is in use, `SecretError` for a wrong key."""
        camera = self._build(self.spec)
        try:
            if self._start is not None:
                self._mark_start(self._start, camera)
        except BaseException:
            camera.spool.close()
            raise
        self.camera = camera
        return camera

    def _mark_start(self, start: Start, camera: Camera) -> None:
        """Rewind the source at the first start, and if it reads from another place than before. A damaged file counts
        as a restart. A restart writes the file again: it may be damaged, of an earlier release or under an earlier key.
        """
        now_ms, source = unix_ms(), _source_of(self.spec)
        try:
            started_ms, _ = start.first(source)
        except DamagedStartError as error:
            _log.warning("damaged_start_replaced", camera=self.spec.settings.camera_id, error=str(error))
            started_ms = now_ms
        if started_ms is None:
            camera.spool.rewind()
            start.note(now_ms, source=source)
        else:
            with contextlib.suppress(StateError):  # then the next start writes it
                start.note(started_ms, source=source)

    def start(self, after: asyncio.Task[None] | None = None) -> None:
        """Begin the camera's task, unless it runs; `after` is the task that still holds the spool."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(after), name=self.spec.settings.camera_id)

    async def cancel(self) -> None:
        """End the camera's task; the camera stays open."""
        if self._task is not None:
            await cancel(self._task)

    def finish(self, *, resumes: bool) -> None:
        """End publishing. With `resumes`, the next start continues in the source; otherwise the source starts again."""
        if self.camera is None:
            return
        self.camera.finish()
        if self._start is not None and not resumes:
            with contextlib.suppress(OSError):  # then the next start continues where this one ended
                self._start.forget()

    async def close(self) -> None:
        """Disconnect and release the spool; a failure is logged."""
        if self.camera is None:
            return
        try:
            await self.camera.close(_CLOSE_S)
        except Exception as error:
            _log.error("camera_close_failed", camera=self.spec.settings.camera_id, error=str(error))

    async def _run(self, after: asyncio.Task[None] | None) -> None:
        if after is not None:
            await asyncio.wait({after})
        backoff = Backoff(*_RETRY_S)
        while self.camera is None:
            # The spool is opened on the event loop: the other cameras must not wait for a slow disk.
            await run_in_daemon_thread(partial(read_ahead, self._folder), f"{self.spec.settings.camera_id}-spool")
            try:
                self.open()
            except PointillistError as error:
                self._failure = str(error)
            except Exception as error:
                self._failure = type(error).__name__
                _log.exception("camera_failed", camera=self.spec.settings.camera_id)
            if self.camera is None:
                await backoff.wait()
        self._failure = ""
        await self.camera.run()


def _source_of(spec: CameraSpec) -> str:
    """Return the key's generation and a hash of the place from which a camera reads, which differs by generation.

    It is keyed: an address may hold a password.
    """
    source = spec.settings.source
    address = "" if source.address is None else source.address.get_secret_value()
    place = address if source.file is None else source.file.absolute()
    return f"{spec.key.generation} {spec.key.choice(f'{source.kind} {place}'.encode()):016x}"
