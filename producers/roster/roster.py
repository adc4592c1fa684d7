"""All real cameras of a process, as a list that is watched has them: who comes, changes or goes touches no other."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from producers.camera import Camera
from producers.fleet import CONNECTING, FILES, SECURING, STOP_PATIENCE_S, FleetOutcome, allow_open_files, link_of
from producers.keeping import Keeping
from producers.metrics import Instruments
from producers.publisher import Broker, LinkSettings
from producers.roster.members import CameraList, Member, Wanted
from producers.roster.seat import Seat
from producers.spool.folder import spool_root
from producers.threads import beside
from producers.turns import Turns
from schemas.errors import UserError
from schemas.identity import CameraId
from schemas.metrics import CAMERA_LIST_REFUSED, DISK_FREE
from schemas.runtime.atomic_file import replacing
from schemas.runtime.disk import free_bytes
from schemas.runtime.health import Health
from schemas.transport.access import Login, Tls

_log = structlog.get_logger()

LOOK_S: Final = 0.5
"""How often the list is looked at, and what became of the cameras."""
_LEAVE_S: Final = 10.0
"""How long a camera that was taken off the list waits for its last confirmations."""
_NAMED: Final = 8
"""Cameras whose trouble one line of health names."""


async def run_roster(
    cameras: CameraList,
    *,
    state: Path,
    registry: CollectorRegistry,
    health: Health,
    stop: asyncio.Event,
    ends_at_ms: int | None = None,
    drain_s: float = 30.0,
    link: LinkSettings | None = None,
    report: Path | None = None,
) -> FleetOutcome:
    """Run all cameras of a list until `stop`, `ends_at_ms` (Unix time) or until every source has ended; then drain.

    The list is read again whenever its stamp changes. Where it cannot be read, what ran goes on. `report` is a file in
    which the state of each camera stands, with its reason.

    Raises `ConfigError` when the list cannot be read at the start.
    """
    wanted = await beside(cameras.read, "camera-list")
    roster = _Roster(cameras, wanted, state, registry, health, link, report)
    return await roster.run(stop, ends_at_ms, drain_s)


class _Roster:
    def __init__(
        self,
        cameras: CameraList,
        wanted: Wanted,
        state: Path,
        registry: CollectorRegistry,
        health: Health,
        link: LinkSettings | None,
        report: Path | None,
    ) -> None:
        self._list = cameras
        self._stamp = cameras.stamp()
        self._wanted = wanted
        self._root = spool_root(state)
        self._health = health
        self._report = report
        secure = any(member.tls is not None for member in wanted.members.values())
        self._link = link or link_of(len(wanted.members), secure=secure)
        self._instruments = Instruments.on(registry)
        self._list_refused = CAMERA_LIST_REFUSED.on(registry)
        DISK_FREE.on(registry).labels("spools").set_function(partial(free_bytes, self._root))
        self._turns = Turns()
        self._running: list[Camera] = []
        self._keeping = Keeping(self._running, self._instruments, health)
        self._brokers: dict[tuple[tuple[str, int], bool, Login | None], tuple[Broker, dict[CameraId, Tls]]] = {}
        self._seats: dict[CameraId, Seat] = {}
        self._tasks: dict[CameraId, asyncio.Task[None]] = {}
        self._leaving: dict[CameraId, asyncio.Task[None]] = {}
        self._said: dict[CameraId, tuple[str, str]] = {}
        self._gone: Counter[str] = Counter()
        self._patience_s = math.inf

    async def run(self, stop: asyncio.Event, ends_at_ms: int | None, drain_s: float) -> FleetOutcome:
        """Follow the list until told to end."""
        self._health.set("mqtt", False)
        ticking = asyncio.create_task(self._keeping.run(), name="roster-tick")
        stopping = asyncio.create_task(stop.wait(), name="roster-stop")
        try:
            self._follow(self._wanted)
            while not (stopping.done() or self._is_over(ends_at_ms)):
                await asyncio.wait({stopping}, timeout=LOOK_S)
                await self._look()
                self._say()
        finally:
            if stop.is_set():
                self._patience_s = STOP_PATIENCE_S
            stopping.cancel()
            try:
                await self._end(drain_s)
            finally:
                ticking.cancel()
                await asyncio.gather(ticking, stopping, return_exceptions=True)
        return FleetOutcome(
            drained=not self._gone["pending"],
            frames_published=self._gone["published"],
            frames_pending=self._gone["pending"],
            frames_shed=self._gone["shed"],
            frames_skipped=self._gone["skipped"],
        )

    def _is_over(self, ends_at_ms: int | None) -> bool:
        if ends_at_ms is not None and time.time_ns() // 10**6 >= ends_at_ms:
            return True
        seats = self._seats.values()
        return bool(seats) and not self._wanted.refused and all(seat.ended for seat in seats)

    async def _look(self) -> None:
        """Read the list again where it has changed."""
        stamp = self._list.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._wanted = await beside(self._list.read, "camera-list")
        except UserError as error:
            self._list_refused.set(1)
            self._health.set("list", True, f"as before: {error}")
            _log.error("camera_list_refused", detail=str(error))
            return
        self._list_refused.set(0)
        self._health.set("list", True)
        self._follow(self._wanted)

    def _follow(self, wanted: Wanted) -> None:
        """Start who is new, end who is gone, and both for whom something changed."""
        allow_open_files(FILES[0] + FILES[1] * len(wanted.members))
        for name in list(self._seats):
            if name not in wanted.members:
                _log.info("camera_removed", camera=name)
                self._leave(name, _LEAVE_S)
            elif self._seats[name].member != wanted.members[name]:
                _log.info("camera_changed", camera=name)
                same = self._seats[name].member.settings.source == wanted.members[name].settings.source
                self._leave(name, 0.0, again=same)
        for name, member in wanted.members.items():
            if name not in self._seats:
                _log.info("camera_added", camera=name)
                seat = self._seats[name] = Seat(member, self._root / name, self._build, self._running)
                self._tasks[name] = asyncio.create_task(self._sit(seat, self._leaving.get(name)), name=name)

    async def _sit(self, seat: Seat, before: asyncio.Task[None] | None) -> None:
        """Run a camera once the one before it has left the spool."""
        if before is not None:
            await asyncio.wait({before})
        await seat.run()

    def _leave(self, name: CameraId, drain_s: float, again: bool = False) -> None:
        """End a camera without waiting for it."""
        seat, task, before = self._seats.pop(name), self._tasks.pop(name), self._leaving.get(name)
        leaving = asyncio.create_task(self._farewell(seat, task, before, drain_s, again), name=f"{name}-leaves")
        self._leaving[name] = leaving
        leaving.add_done_callback(partial(self._left, name))

    def _left(self, name: CameraId, leaving: asyncio.Task[None]) -> None:
        if self._leaving.get(name) is leaving:
            del self._leaving[name]

    async def _farewell(
        self, seat: Seat, task: asyncio.Task[None], before: asyncio.Task[None] | None, drain_s: float, again: bool
    ) -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if before is not None:
            await asyncio.wait({before})
        camera, name = seat.camera, seat.member.settings.camera_id
        try:
            await seat.leave(drain_s, self._patience_s, again)
        except Exception as error:
            _log.error("camera_close_failed", camera=name, detail=str(error))
        if camera is not None:
            ledger = camera.spool.current
            self._gone.update(
                published=ledger.next,
                skipped=ledger.frames_skipped,
                shed=len(ledger.shed),
                # What a change leaves in the spool, the camera's next boot sends.
                pending=0 if again or camera.spool.drained else max(1, camera.spool.frames),
            )
            _log.info(
                "camera_left", camera=name, frames_published=ledger.next, frames_skipped=ledger.frames_skipped,
                frames_still=camera.still, frames_pending=camera.spool.frames,
            )  # fmt: skip

    def _build(self, member: Member) -> Camera:
        secure = member.tls is not None
        place = member.mqtt, secure, member.login
        if place not in self._brokers:
            known: dict[CameraId, Tls] = {}
            at_once = SECURING if secure else CONNECTING
            broker = Broker(*member.mqtt, at_once=at_once, tls=known if secure else None, login=member.login)
            self._brokers[place] = broker, known
        broker, enrolled = self._brokers[place]
        name = member.settings.camera_id
        if member.tls is not None:
            enrolled[name] = member.tls
        return Camera(
            member.settings, member.key, self._root / name, broker, self._link, self._instruments, self._turns
        )

    def states(self) -> dict[CameraId, tuple[str, str]]:
        """Each camera of the list, its state and why."""
        refused = {name: ("refused", reason) for name, reason in self._wanted.refused.items()}
        return {**{name: seat.state() for name, seat in self._seats.items()}, **refused}

    def _say(self) -> None:
        """Log whose state is another than before, and name those in trouble."""
        states = self.states()
        for name, (state, why) in states.items():
            if self._said.get(name) != (state, why):
                log = _log.warning if state in ("refused", "degraded", "offline") else _log.info
                log("camera_state", camera=name, state=state, detail=why)
        changed, self._said = states != self._said, states
        sick = {name: why or state for name, (state, why) in states.items() if state in ("refused", "degraded")}
        more = f" and {len(sick) - _NAMED} more" if len(sick) > _NAMED else ""
        named = "; ".join(f"{name}: {why}" for name, why in list(sick.items())[:_NAMED])
        # A camera in trouble must not have the process of all others restarted.
        self._health.set("cameras", True, f"{len(sick)} of {len(states)} in trouble: {named}{more}" if sick else "")
        if changed and self._report is not None:
            _write_report(self._report, states)

    async def _end(self, drain_s: float) -> None:
        """End all cameras and wait for what is on its way."""
        for name in list(self._seats):
            self._leave(name, drain_s)
        if self._leaving:
            await asyncio.gather(*self._leaving.values(), return_exceptions=True)


def _write_report(file: Path, states: Mapping[CameraId, tuple[str, str]]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as fresh:
            shown = {name: {"state": state, "detail": why} for name, (state, why) in sorted(states.items())}
            fresh.write_text(json.dumps(shown, indent=1) + "\n")
    except OSError as error:
        _log.warning("camera_report_not_written", file=str(file), detail=error.strerror)
