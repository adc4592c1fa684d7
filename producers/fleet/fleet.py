"""All cameras of a process on one event loop. Their list may change: a change to one camera affects no other."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog
from prometheus_client import CollectorRegistry

from producers.camera.camera import Camera
from producers.camera.fair_gate import FairGate
from producers.fleet.camera_spec import CameraList, CameraSpec, CameraSpecs
from producers.fleet.fleet_ticker import FleetTicker
from producers.fleet.limits import CONNECTING, SECURING, allow_open_files, link_of
from producers.fleet.phase_report import PhaseReport
from producers.fleet.supervisor import CameraSupervisor, TaskPhase
from producers.metrics import Instruments
from producers.publisher import Broker, LinkSettings
from producers.spool.folder import spool_root
from schemas.errors import SourceError, UserError
from schemas.identity import CameraId
from schemas.metrics import CAMERA_LIST_REFUSED, DISK_FREE
from schemas.pixels.masks import make_pool
from schemas.runtime.daemon_thread import run_in_daemon_thread
from schemas.runtime.disk import free_bytes
from schemas.runtime.health import Health
from schemas.transport.access import Login, Tls
from schemas.waiting import cancel, ends_before

_log = structlog.get_logger()

_POLL_S: Final = 0.5
"""Interval between two checks of the list and of the tasks."""
_REREAD_S: Final = 30.0
"""Interval between two reads of an unchanged list that is invalid, or has cameras that cannot run: their cause may lie
elsewhere, as in the rights of a file."""
_OPENING_S: Final = 3.0
"""Maximum time for which cameras that start together wait for each other's sources."""
_REMOVAL_S: Final = 10.0
"""Maximum drain time of a camera that was removed from the list."""
_STOP_PATIENCE_S: Final = 5.0
"""Maximum time without a confirmation in a drain after a stop was requested."""
_DRAIN_POLL_S: Final = 0.05


@dataclass(frozen=True)
class FleetOutcome:
    """The sums over all cameras at the end of a run. `drained`: every frame and every closing ledger is confirmed."""

    drained: bool
    frames_published: int
    frames_pending: int
    frames_shed: int
    frames_skipped: int
    refused: str = ""
    """The last reason for which frames of a camera were rejected; empty without one."""


class Fleet:
    """The cameras of a process: opened, ticked, changed, drained and closed. Inside `async with` they are ticked; at
    its end they are closed."""

    def __init__(
        self,
        specs: CameraSpecs,
        *,
        state: Path,
        registry: CollectorRegistry,
        health: Health,
        stop: asyncio.Event,
        link: LinkSettings | None = None,
        report: Path | None = None,
        starts_together: bool = False,
    ) -> None:
        """`report` is a JSON file for the phase of each camera.

        The caller of a fleet that `starts_together` notes the first start of all its cameras. In another fleet, a file
        in each camera's spool folder distinguishes a restart from a first start, and the log names each camera.
        """
        self.supervisors: dict[CameraId, CameraSupervisor] = {}
        self._specs = specs
        self._root = spool_root(state)
        self._health = health
        self._stop = stop
        self._link = link or link_of(len(specs.runnable), secure=specs.secure)
        self._starts_together = starts_together
        self._instruments = Instruments(registry)
        self._list_refused = CAMERA_LIST_REFUSED.on(registry)
        self._list_error = ""
        """The error of the last read of the list; empty if it was read."""
        DISK_FREE.on(registry).labels("spools").set_function(partial(free_bytes, self._root))
        self._fair_gate = FairGate()
        self._brokers: dict[tuple[tuple[str, int], bool, Login | None], tuple[Broker, dict[CameraId, Tls]]] = {}
        self._present: list[CameraSupervisor] = []
        phases = PhaseReport(self._tasks, self._instruments, health, report, logs=not starts_together)
        self._ticker = FleetTicker(self._cameras, self._instruments, health, phases.update)
        self._leaving: dict[CameraId, asyncio.Task[None]] = {}
        self._counts: Counter[str] = Counter()
        self._drained = True
        self._refused = ""
        health.set("mqtt", False)

    async def __aenter__(self) -> Self:
        self._ticking = asyncio.create_task(self._ticker.run(), name="fleet-tick")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.drain(0.0, resume=True)
        finally:
            await cancel(self._ticking)

    @property
    def outcome(self) -> FleetOutcome:
        """The sums over all cameras that are closed."""
        return FleetOutcome(
            drained=self._drained,
            frames_published=self._counts["published"],
            frames_pending=self._counts["pending"],
            frames_shed=self._counts["shed"],
            frames_skipped=self._counts["skipped"],
            refused=self._refused,
        )

    def open(self) -> list[Camera]:
        """Open every spool; raises the `StateError` or `SecretError` of the first that cannot be opened."""
        self._health.set("spools", False)
        allow_open_files(len(self._specs.runnable))
        cameras = [self._add(name, spec).open() for name, spec in self._specs.runnable.items()]
        self._health.set("spools", True)
        return cameras

    async def open_sources(self, *, strict: bool, ends_at_ms: int | None = None) -> bool:
        """Open all sources; returns whether that was done before `ends_at_ms` and the stop.

        A source that is slow or fails is retried by its camera. With `strict`, raises the first `SourceError` when
        not a single source opens.
        """
        opening = asyncio.create_task(self._open_sources(strict), name="fleet-sources")
        is_done = await ends_before(opening, self._stop, _seconds_until(ends_at_ms))
        if is_done:
            opening.result()
        return is_done

    async def follow(
        self, ends_at_ms: int | None = None, cameras: CameraList | None = None, stamp: Hashable = None
    ) -> None:
        """Run the cameras until the stop, `ends_at_ms` (Unix time) or until every source has ended.

        A list of cameras is read again when its stamp differs from `stamp`, which was taken before its first read, and
        is the same at two successive checks: half of a list may be a valid one, without a camera's privacy regions. If
        the list cannot be read, its former cameras continue. A list that cannot be read, or has cameras that cannot
        run, is also read again without a change.
        """
        self._apply(self._specs)
        reread_s, seen = time.monotonic() + _REREAD_S, stamp
        while not self._stop.is_set() and not self._is_over(ends_at_ms):
            left_s = _seconds_until(ends_at_ms)
            stopping = asyncio.create_task(self._stop.wait(), name="fleet-stop")
            await asyncio.wait({stopping}, timeout=_POLL_S if left_s is None else min(_POLL_S, left_s))
            stopping.cancel()
            if cameras is None or self._stop.is_set():
                continue
            is_due = bool(self._list_error or self._specs.rejected) and time.monotonic() >= reread_s
            now, before = cameras.stamp(), seen
            seen = now
            if now == before and (now != stamp or is_due):
                stamp = now
                await self._reread(cameras)
                reread_s = time.monotonic() + _REREAD_S

    async def drain(self, drain_s: float, *, resume: bool = False) -> None:
        """End all cameras: wait up to `drain_s` for their confirmations, and close them.

        With `resume`, the next start of this process continues each source where it stopped; else each source restarts.
        """
        before = list(self._leaving.values())
        await self._end(self.supervisors, drain_s, resume)
        self.supervisors.clear()
        await asyncio.gather(*before, return_exceptions=True)

    def _add(self, name: CameraId, spec: CameraSpec) -> CameraSupervisor:
        made = CameraSupervisor(spec, self._root / name, self._build, marks_start=not self._starts_together)
        self.supervisors[name] = made
        self._present.append(made)
        return made

    def _build(self, spec: CameraSpec) -> Camera:
        name, secure = spec.settings.camera_id, spec.tls is not None
        place = spec.mqtt, secure, spec.login
        if place not in self._brokers:
            certificates: dict[CameraId, Tls] = {}
            tls = certificates if secure else None
            broker = Broker(*spec.mqtt, at_once=SECURING if secure else CONNECTING, tls=tls, login=spec.login)
            self._brokers[place] = broker, certificates
        broker, certificates = self._brokers[place]
        if spec.tls is not None:
            certificates[name] = spec.tls
        return Camera(
            spec.settings, spec.key, self._root / name, broker, self._link, self._instruments, self._fair_gate,
            phase_s=spec.phase_s, wrap_source=spec.wrap_source, wrap_link=spec.wrap_link,
        )  # fmt: skip

    def _cameras(self) -> list[Camera]:
        """Return all open cameras, including those that are draining."""
        return [each.camera for each in self._present if each.camera is not None]

    def _tasks(self) -> dict[CameraId, tuple[TaskPhase, str, Camera | None]]:
        tasks = {name: (*each.phase(), each.camera) for name, each in self.supervisors.items()}
        return tasks | {name: (TaskPhase.FAILING, reason, None) for name, reason in self._specs.rejected.items()}

    def _is_over(self, ends_at_ms: int | None) -> bool:
        left_s = _seconds_until(ends_at_ms)
        if left_s is not None and left_s <= 0:
            return True
        supervisors = self.supervisors.values()
        return bool(supervisors) and not self._specs.rejected and all(each.done for each in supervisors)

    async def _open_sources(self, strict: bool) -> None:
        await run_in_daemon_thread(self._make_pools, "mask-pools")
        # Outside its hours, and while a command pauses it, a camera may be switched off: it opens its source later.
        cameras = self._cameras()
        opening = {asyncio.create_task(camera.open_source()) for camera in cameras if camera.may_send}
        if not opening:
            return
        strict = strict and len(opening) == len(cameras)
        try:
            done, waiting = await asyncio.wait(opening, timeout=_OPENING_S)
            while strict and waiting and all(task.exception() for task in done):
                more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                done |= more
        finally:
            results = await cancel(*opening)
        failures = [result for result in results if isinstance(result, SourceError)]
        if strict and len(failures) == len(results):
            raise failures[0]

    def _make_pools(self) -> None:
        """Make the mask patterns that cameras with computed sources share, so that these sources open without a thread
        each."""
        computed = [spec.settings for spec in self._specs.runnable.values() if spec.settings.source.computed]
        for dropped in {settings.encoding.dropped_per_block for settings in computed}:
            make_pool(dropped)

    async def _reread(self, cameras: CameraList) -> None:
        try:
            specs = await run_in_daemon_thread(cameras.read, "camera-list")
        except Exception as error:  # a defect in reading the list must not end the cameras
            self._list_refused.set(1)
            before, self._list_error = self._list_error, str(error) or type(error).__name__
            is_new = self._list_error != before
            if isinstance(error, UserError):
                self._health.set("list", True, f"as before: {error}")
                if is_new:
                    _log.error("camera_list_rejected", error=str(error))
            else:
                self._health.set("list", True, "as before: its reading failed, see the log")
                if is_new:
                    _log.exception("camera_list_failed")
            return
        self._list_refused.set(0)
        self._list_error = ""
        self._health.set("list", True)
        self._apply(specs)

    def _apply(self, specs: CameraSpecs) -> None:
        """Start new cameras, end removed ones, and restart changed ones."""
        self._specs = specs
        allow_open_files(len(specs.runnable))
        for name, supervisor in list(self.supervisors.items()):
            spec = specs.runnable.get(name)
            if spec is None:
                _log.info("camera_removed", camera=name)
                # An enrolment that cannot be read may be in the middle of a copy: its camera comes back.
                self._remove(name, _REMOVAL_S, resume=name in specs.rejected)
            elif spec != supervisor.spec:
                _log.info("camera_changed", camera=name)
                self._remove(name, 0.0, resume=spec.settings.source == supervisor.spec.settings.source)
        for name, spec in specs.runnable.items():
            if name not in self.supervisors:
                _log.info("camera_added", camera=name)
                self._add(name, spec)
            self.supervisors[name].start(self._leaving.get(name))

    def _remove(self, name: CameraId, drain_s: float, *, resume: bool) -> None:
        """End one camera without waiting for it."""
        supervisor, before = self.supervisors.pop(name), self._leaving.get(name)
        leaving = asyncio.create_task(self._end({name: supervisor}, drain_s, resume, before), name=f"{name}-leaves")
        self._leaving[name] = leaving
        leaving.add_done_callback(partial(self._forget_leaving, name))

    def _forget_leaving(self, name: CameraId, leaving: asyncio.Task[None]) -> None:
        if self._leaving.get(name) is leaving:
            del self._leaving[name]

    async def _end(
        self,
        leaving: Mapping[CameraId, CameraSupervisor],
        drain_s: float,
        resume: bool,
        before: asyncio.Task[None] | None = None,
    ) -> None:
        supervisors = list(leaving.values())
        await asyncio.gather(*(each.cancel() for each in supervisors))
        if before is not None:
            await asyncio.wait({before})
        for each in supervisors:
            each.finish(resumes=resume)
        cameras = [each.camera for each in supervisors if each.camera is not None]
        try:
            await self._await_confirmations(cameras, drain_s)
        finally:
            for camera in cameras:
                self._count(camera, resume)
            await asyncio.gather(*(each.close() for each in supervisors))
            self._present = [each for each in self._present if each not in supervisors]

    async def _await_confirmations(self, cameras: Sequence[Camera], drain_s: float) -> None:
        """Return when all spools are drained, after `drain_s`, or when the stop is set and no spool makes progress."""
        deadline = time.monotonic() + drain_s
        patience, left = math.inf, -1
        while not all(camera.spool.drained for camera in cameras) and time.monotonic() < min(deadline, patience):
            if self._stop.is_set():
                now_left = sum(camera.spool.frames for camera in cameras)
                if now_left != left:
                    patience, left = time.monotonic() + _STOP_PATIENCE_S, now_left
            await asyncio.sleep(_DRAIN_POLL_S)

    def _count(self, camera: Camera, resume: bool) -> None:
        ledger, frames = camera.spool.current, camera.spool.frames
        self._counts.update(published=ledger.next, skipped=ledger.frames_skipped, shed=len(ledger.shed))
        # The camera's next boot sends the frames that a change leaves in the spool.
        self._counts["pending"] += 0 if resume else frames
        self._drained &= resume or camera.spool.drained
        self._refused = self._refused or camera.publisher.refused
        if self._starts_together:
            return
        _log.info(
            "camera_left", camera=camera.settings.camera_id, frames_published=ledger.next,
            frames_skipped=ledger.frames_skipped, frames_still=camera.still, frames_pending=frames,
        )  # fmt: skip


def _seconds_until(unix_ms: int | None) -> float | None:
    return None if unix_ms is None else unix_ms / 1000 - time.time()
