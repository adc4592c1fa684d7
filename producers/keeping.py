"""What all cameras of a process need a few times a second: connections kept, spools looked after, how they are said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import structlog

from producers.camera import Camera
from producers.metrics import Instruments
from producers.rounds import Rounds
from schemas.errors import PointillistError
from schemas.runtime.health import Health
from schemas.runtime.throttle import Throttle

_log = structlog.get_logger()

TICK_S: Final = 0.2
_AGAIN_S: Final = 60.0
"""A camera that fails at every tick says so once in this time."""
_REMEMBERED: Final = 16_384


def state_of(camera: Camera) -> str:
    """`offline` without a connection, `degraded` with anything impaired, else `online`."""
    if not camera.publisher.link.up:
        return "offline"
    return "degraded" if camera.publisher.presence.degraded else "online"


class Keeping:
    """Looks after `cameras`, of which some may come and go meanwhile; `run` until it is cancelled."""

    def __init__(
        self, cameras: Sequence[Camera], instruments: Instruments, health: Health, *, logs_states: bool = False
    ) -> None:
        """With `logs_states`, each change of a camera's state is an event `camera_state`."""
        self._logged: dict[str, tuple[str, str, tuple[int, int, float]]] | None = {} if logs_states else None
        self._cameras = cameras
        self._instruments = instruments
        self._health = health
        self._complained: Throttle[tuple[str, str]] = Throttle(_AGAIN_S, remembered=_REMEMBERED)

    async def run(self) -> None:
        """Keep every connection and spool going, and the metrics and the health up to date once a second.

        Of many cameras some at a time, so that frames never wait for all of them; calm ones not every time.
        """
        cameras = list(self._cameras)
        rounds = Rounds(len(cameras))
        next_report = 0.0
        while True:
            if len(cameras) != len(self._cameras):
                rounds = Rounds(len(self._cameras))
            cameras = list(self._cameras)
            for due in rounds.parts():
                now, now_ms = time.monotonic(), time.time_ns() // 10**6
                for number, always in due:
                    camera = cameras[number]
                    if camera.closed or (not always and camera.calm):
                        continue
                    try:
                        camera.tick(now, now_ms)
                    except Exception as error:
                        self._failed("camera_tick_failed", error, now, camera=camera.settings.camera_id)
                await asyncio.sleep(TICK_S / rounds.in_parts)
            now = time.monotonic()
            try:
                missing = sum(not (camera.publisher.link.up or camera.publisher.link.held) for camera in cameras)
                self._health.set("mqtt", not missing, f"{missing} of {len(cameras)} cameras without a connection")
                if now >= next_report:
                    next_report = now + 1
                    self._report()
            except Exception as error:
                self._failed("fleet_report_failed", error, now)

    def _failed(self, event: str, error: Exception, now: float, camera: str = "") -> None:
        """Say it now and then; the tick of every camera goes on, this one's too."""
        if self._complained.take((event, camera), now):
            whose = {"camera": camera} if camera else {}
            _log.error(event, detail=str(error), exc_info=not isinstance(error, PointillistError), **whose)

    def _report(self) -> None:
        states = {"online": 0, "offline": 0, "degraded": 0}
        for camera in self._cameras:
            states[state_of(camera)] += 1
            if self._logged is not None:
                self._log_state(camera, self._logged)
        for state, count in states.items():
            self._instruments.cameras.labels(state).set(count)
        self._instruments.spool_frames.set(sum(camera.spool.frames for camera in self._cameras))
        self._instruments.spool_bytes.set(sum(camera.spool.bytes for camera in self._cameras))
        oldest_s = max((camera.spool.oldest_age_s() for camera in self._cameras), default=0.0)
        self._instruments.spool_oldest_s.set(oldest_s)

    def _log_state(self, camera: Camera, logged: dict[str, tuple[str, str, tuple[int, int, float]]]) -> None:
        name, state = camera.settings.camera_id, state_of(camera)
        width, height, rate = camera.sending
        found = state, camera.trouble, (width, height, rate)
        if logged.get(name) != found:
            logged[name] = found
            log = _log.info if state == "online" else _log.warning
            log(
                "camera_state", camera=name, state=state, detail=camera.trouble, width=width, height=height,
                frames_per_second=rate,
            )  # fmt: skip
