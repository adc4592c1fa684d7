"""The ticker of all cameras in a process: connections, spools, gauges and health."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from producers.camera.camera import Camera
from producers.fleet.tick_groups import TickGroups
from producers.metrics import Instruments
from schemas.errors import PointillistError
from schemas.runtime.health import Health
from schemas.runtime.throttle import Throttle

_log = structlog.get_logger()

TICK_S: Final = 0.2
_AGAIN_S: Final = 60.0
"""Interval between two equal errors of one camera in the log."""
_REMEMBERED: Final = 16_384


class FleetTicker:
    """Ticks all cameras of a process, which may come and go; `run` until it is cancelled."""

    def __init__(
        self,
        cameras: Callable[[], Sequence[Camera]],
        instruments: Instruments,
        health: Health,
        report: Callable[[], None],
    ) -> None:
        """`cameras` returns the open cameras; `report` is called about once a second."""
        self._cameras = cameras
        self._report_phases = report
        self._instruments = instruments
        self._health = health
        self._complained: Throttle[tuple[str, str]] = Throttle(_AGAIN_S, remembered=_REMEMBERED)

    async def run(self) -> None:
        """Tick every camera, and update gauges and health once a second.

        A large fleet is ticked in groups, so frames never wait for all cameras. An idle camera is not ticked in every
        round.
        """
        groups = TickGroups(0)
        next_report = 0.0
        while True:
            cameras = self._cameras()
            if len(cameras) != groups.cameras:
                groups = TickGroups(len(cameras))
            for due in groups.next_round():
                now = time.monotonic()
                for number, always in due:
                    camera = cameras[number]
                    if camera.closed or (not always and camera.idle):
                        continue
                    try:
                        camera.tick(now)
                    except Exception as error:
                        self._failed("camera_tick_failed", error, now, camera=camera.settings.camera_id)
                await asyncio.sleep(TICK_S / groups.count)
            now = time.monotonic()
            try:
                links = [camera.publisher.link for camera in cameras]
                missing = sum(link.wanted and not link.up for link in links)
                refused = sum(link.up and link.subscription_refused for link in links)
                detail = f"{missing} of {len(cameras)} cameras without a connection"
                if refused:
                    detail += f", {refused} with a refused subscription"
                self._health.set("mqtt", not missing and not refused, detail)
                if now >= next_report:
                    next_report = now + 1
                    self._report(cameras)
            except Exception as error:
                self._failed("fleet_report_failed", error, now)

    def _failed(self, event: str, error: Exception, now: float, camera: str = "") -> None:
        """Log an error at intervals. All cameras are still ticked, including the failing one."""
        if self._complained.try_acquire((event, camera), now):
            whose = {"camera": camera} if camera else {}
            _log.error(event, error=str(error), exc_info=not isinstance(error, PointillistError), **whose)

    def _report(self, cameras: Sequence[Camera]) -> None:
        spools = [camera.spool for camera in cameras]
        self._instruments.spool_frames.set(sum(spool.frames for spool in spools))
        self._instruments.spool_bytes.set(sum(spool.bytes for spool in spools))
        self._instruments.spool_oldest_s.set(max((spool.oldest_age_s() for spool in spools), default=0.0))
        self._report_phases()
