"""The fleet: all cameras of a process on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import math
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from producers.camera import Camera
from producers.faults import FaultPlan
from producers.keeping import Keeping
from producers.metrics import Instruments
from producers.publisher import Broker, LinkSettings
from producers.publisher.first_answer import FIRST_ANSWER_S
from producers.redteam.team import RedTeam
from producers.scenario import CameraSettings, Fault, Scenario
from producers.spool.folder import spool_root
from producers.start import Start, fleet_started
from producers.turns import Turns
from schemas.errors import SecretError, SourceError, StateError
from schemas.identity import CameraId
from schemas.keys import CameraKey
from schemas.metrics import DISK_FREE
from schemas.runtime.disk import free_bytes
from schemas.runtime.health import Health
from schemas.transport.access import Login, Tls

_log = structlog.get_logger()

STOP_PATIENCE_S: Final = 5.0
"""How long a fleet that was told to stop waits for the next confirmation."""
_OPENING_S: Final = 3.0
"""How long the cameras wait for each other's sources before the first frames."""
_FAREWELL_S: Final = 2.0
CONNECTING: Final = 64
SECURING: Final = 16
"""Connections that are begun at once, without TLS and with it: that takes milliseconds of CPU time on both sides, and
where other work leaves little of that, 64 at once were none of them ready in time."""
_PINGS_PER_S: Final = 250
_SECURED_PINGS_PER_S: Final = 100
"""By TLS, where a connection that is ended for a ping that comes late costs far more to make again."""
_LEDGERS_PER_S: Final = 50
FILES: Final = (512, 8)
"""Files that a process may need to hold open: so many, and so many more for each camera. Where the system allows less,
a camera makes do with its connection, and one more file while it writes."""


@dataclass(frozen=True)
class FleetOutcome:
    """What a run ended with. `drained`: every frame and every closing ledger is confirmed."""

    drained: bool
    frames_published: int
    frames_pending: int
    frames_shed: int
    frames_skipped: int
    refused: str = ""
    """Why frames of a camera were refused last; empty when none was."""


async def run_fleet(
    scenario: Scenario,
    *,
    mqtt: tuple[str, int],
    state: Path,
    keys: Mapping[CameraId, CameraKey],
    registry: CollectorRegistry,
    health: Health,
    stop: asyncio.Event,
    ends_at_ms: int | None = None,
    run_s: float | None = None,
    drain_s: float = 30.0,
    link: LinkSettings | None = None,
    mark: Path | None = None,
    again: bool = False,
    patient: bool = False,
    tls: Mapping[CameraId, Tls] | None = None,
) -> FleetOutcome:
    """Run all cameras until their sources end, `ends_at_ms` (Unix time), `run_s` or `stop`; then drain the spools.

    A fleet that is started again with the same `mark` goes on where the last one was, however that ended; `run_s`
    seconds count from its first capture. When its time is over it drains only, as after a kill while it drained; with
    `again` it begins another run then, and also when all sources had ended. `mark` is the file that says when the run
    began, by default the one of `fleet_started`.

    `tls` says how each camera connects, None that the broker speaks none.

    Raises `SecretError` without a key for each camera, `ConfigError` when a generator of an attack cannot be run,
    `StateError` when a spool is in use, and, at the very first start, `SourceError` when no camera has a source that
    opens. A `patient` fleet tries sources that have an address again instead: its cameras are degraded meanwhile.
    """
    start = Start(mark or fleet_started(state), again=again)
    fleet = _Fleet(scenario.cameras(), scenario.faults, mqtt, state, keys, registry, health, link, start, tls)
    fleet.patient = patient and any(camera.source.kind == "url" for camera in scenario.cameras())
    return await fleet.run(stop, ends_at_ms, drain_s, run_s)


async def run_camera(
    settings: CameraSettings,
    *,
    mqtt: tuple[str, int],
    state: Path,
    key: CameraKey,
    registry: CollectorRegistry,
    health: Health,
    stop: asyncio.Event,
    ends_at_ms: int | None = None,
    drain_s: float = 30.0,
    link: LinkSettings | None = None,
    tls: Tls | None = None,
    login: Login | None = None,
) -> FleetOutcome:
    """Run one attached camera: a fleet of one that has nothing to do with others in the same `state`.

    Its source has to open at every start. It goes on where a killed process left it, and begins anew after one that
    ended in good order. Raises `StateError` when its spool is in use and `SourceError` when its source does not open.
    """
    start = Start(spool_root(state) / settings.camera_id / "started.json", attached=True)
    secure = {settings.camera_id: tls} if tls is not None else None
    link = link or link_of(1).model_copy(update={"first_answer_s": FIRST_ANSWER_S})
    fleet = _Fleet([settings], [], mqtt, state, {settings.camera_id: key}, registry, health, link, start, secure, login)
    return await fleet.run(stop, ends_at_ms, drain_s)


class _Fleet:
    """The cameras of this process, from opening their spools to closing them."""

    def __init__(
        self,
        settings: list[CameraSettings],
        faults: list[Fault],
        mqtt: tuple[str, int],
        state: Path,
        keys: Mapping[CameraId, CameraKey],
        registry: CollectorRegistry,
        health: Health,
        link: LinkSettings | None,
        start: Start,
        tls: Mapping[CameraId, Tls] | None,
        login: Login | None = None,
    ) -> None:
        missing = [camera.camera_id for camera in settings if camera.camera_id not in keys]
        if missing:
            raise SecretError(f"expected a key for each camera, got none for {missing[0]} ({len(missing)} in all)")
        self._settings = settings
        self._faults = faults
        self._state = state
        self._keys = keys
        self._health = health
        self._link = link or link_of(len(settings), secure=tls is not None)
        self._start = start
        self.patient = False
        self._instruments = Instruments.on(registry)
        DISK_FREE.on(registry).labels("spools").set_function(partial(free_bytes, spool_root(state)))
        at_once = CONNECTING if tls is None else SECURING
        self._broker = Broker(*mqtt, at_once=at_once, tls=tls, login=login)
        self._turns = Turns()
        self._cameras: list[Camera] = []
        self._keeping = Keeping(self._cameras, self._instruments, health, logs_states=start.attached)
        self._red_team = RedTeam(fault.generator for fault in faults if fault.generator is not None)

    async def run(
        self, stop: asyncio.Event, ends_at_ms: int | None, drain_s: float, run_s: float | None = None
    ) -> FleetOutcome:
        """Open, capture, drain, close."""
        self._health.set("spools", False)
        self._health.set("mqtt", False)
        allow_open_files(FILES[0] + FILES[1] * len(self._settings))
        try:
            self._open_spools()
            self._health.set("spools", True)
            ticking = asyncio.create_task(self._keeping.run(), name="fleet-tick")
            try:
                await self._capture(stop, ends_at_ms, run_s)
                for camera in self._cameras:
                    camera.finish()
                if self._start.attached:
                    with contextlib.suppress(OSError):  # then the next one goes on where this one ended
                        self._start.forget()
                await self._drain(stop, drain_s)
            finally:
                ticking.cancel()
                await asyncio.gather(ticking, return_exceptions=True)
            return self._outcome()
        finally:
            closing = (camera.close(_FAREWELL_S) for camera in self._cameras)
            closed = await asyncio.gather(*closing, return_exceptions=True)
            for camera, failure in zip(self._cameras, closed, strict=True):
                if failure is not None:
                    _log.error("camera_close_failed", camera=camera.settings.camera_id, detail=str(failure))
            self._red_team.close()

    def _open_spools(self) -> None:
        root = spool_root(self._state)
        for settings in self._settings:
            camera_id = settings.camera_id
            key = self._keys[camera_id]
            self._cameras.append(
                Camera(settings, key, root / camera_id, self._broker, self._link, self._instruments, self._turns)
            )

    async def _capture(self, stop: asyncio.Event, ends_at_ms: int | None, run_s: float | None) -> None:
        """Run the cameras until all have ended, or time or `stop` ends them."""
        started_ms, over = self._start.first()
        if run_s is not None and started_ms is not None:
            ends_at_ms = started_ms + round(1000 * run_s)
            over = over or ends_at_ms <= time.time_ns() // 10**6
        if over and self._start.again:
            _log.info("another_run", detail=f"the one that began at {started_ms} ms is over")
            started_ms, ends_at_ms = None, None if run_s is not None else ends_at_ms
        left_s = None if ends_at_ms is None else ends_at_ms / 1000 - time.time()
        if left_s is not None and left_s <= 0:
            return
        if started_ms is None:
            for camera in self._cameras:
                camera.spool.rewind()
        stopping = asyncio.create_task(stop.wait(), name="fleet-stop")
        running: set[asyncio.Task[None]] = set()
        try:
            strict = (started_ms is None or self._start.attached) and not self.patient
            opening = asyncio.create_task(self._open_sources(strict), name="fleet-sources")
            running.add(opening)
            await asyncio.wait({opening, stopping}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                return
            opening.result()
            if started_ms is None:
                started_ms = self._start.note(time.time_ns() // 10**6)
                if run_s is not None:
                    ends_at_ms = started_ms + round(1000 * run_s)
            for number, camera in enumerate(self._cameras):
                name = camera.settings.camera_id
                faults = [fault for fault in self._faults if name.partition("/")[2] in fault.cameras]
                phase_s = number / len(self._cameras) / camera.settings.fps if camera.settings.fps else 0.0
                camera.plan(FaultPlan(faults, started_ms, self._red_team), phase_s)
            running = {asyncio.create_task(camera.run(), name=camera.settings.camera_id) for camera in self._cameras}
            deadline = None if ends_at_ms is None else time.monotonic() + ends_at_ms / 1000 - time.time()
            await _until_all(running, stopping, deadline)
            if not stopping.done() and not self._start.attached:
                with contextlib.suppress(StateError):  # then the next one finds that out by itself
                    self._start.note(started_ms, over=True)
        finally:
            for task in (*running, stopping):
                task.cancel()
            await asyncio.gather(*running, stopping, return_exceptions=True)

    async def _open_sources(self, strict: bool) -> None:
        """Open the sources; slow ones are left to their cameras, which also try again where one fails.

        With `strict`, raises the first `SourceError` when not a single source opens.
        """
        opening = {asyncio.create_task(camera.open_source()) for camera in self._cameras}
        try:
            done, waiting = await asyncio.wait(opening, timeout=_OPENING_S)
            while strict and waiting and all(task.exception() for task in done):
                more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                done |= more
        finally:
            for task in opening:
                task.cancel()
            results = await asyncio.gather(*opening, return_exceptions=True)
        failures = [result for result in results if isinstance(result, SourceError)]
        if strict and len(failures) == len(results):
            raise failures[0]

    async def _drain(self, stop: asyncio.Event, drain_s: float) -> None:
        """Wait until every spool is empty and confirmed: at most `drain_s`; once `stop` is set, only while it helps."""
        deadline = time.monotonic() + drain_s
        patience, left = math.inf, -1
        while not all(camera.spool.drained for camera in self._cameras) and time.monotonic() < min(deadline, patience):
            if stop.is_set():
                now_left = sum(camera.spool.frames for camera in self._cameras)
                if now_left != left:
                    patience, left = time.monotonic() + STOP_PATIENCE_S, now_left
            await asyncio.sleep(0.05)

    def _outcome(self) -> FleetOutcome:
        ledgers = [camera.spool.current for camera in self._cameras]
        return FleetOutcome(
            drained=all(camera.spool.drained for camera in self._cameras),
            frames_published=sum(ledger.next for ledger in ledgers),
            frames_pending=sum(camera.spool.frames for camera in self._cameras),
            frames_shed=sum(len(ledger.shed) for ledger in ledgers),
            frames_skipped=sum(ledger.frames_skipped for ledger in ledgers),
            refused=next((camera.publisher.refused for camera in self._cameras if camera.publisher.refused), ""),
        )


def link_of(cameras: int, *, secure: bool = False) -> LinkSettings:
    """Times of the connections of so many cameras, by TLS if `secure`: none of what they say beside frames grows with
    their number.

    A fleet of one process notices soon enough that its broker hangs. How far a boot has come, each camera of 10,000
    says every 200 s, and at once when frames are shed and when it ends: cameras that send seldom would say it after
    every frame, which costs as much as the frame does.
    """
    usual = LinkSettings()
    return LinkSettings(
        keepalive_s=max(usual.keepalive_s, cameras // (_SECURED_PINGS_PER_S if secure else _PINGS_PER_S)),
        ledger_every_s=max(usual.ledger_every_s, cameras / _LEDGERS_PER_S),
    )


async def _until_all(running: set[asyncio.Task[None]], stopping: asyncio.Task[bool], deadline: float | None) -> None:
    """Return when all of `running` have ended, or `stopping` has, or at the monotonic `deadline`."""
    waiting = set(running)
    while waiting and not stopping.done():
        left_s = None if deadline is None else deadline - time.monotonic()
        if left_s is not None and left_s <= 0:
            return
        done, _ = await asyncio.wait({*waiting, stopping}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        waiting -= done


def allow_open_files(wanted: int) -> None:
    """Raise this process's own bound on open files to `wanted`, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
