"""Real cameras: one that is attached, and many that a file lists."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from producers.fleet.camera_spec import CameraList, CameraSpec, CameraSpecs
from producers.fleet.fleet import Fleet, FleetOutcome
from producers.fleet.limits import link_of
from producers.publisher import LinkSettings
from producers.publisher.first_answer import FIRST_ANSWER_S
from producers.spool.folder import FolderLock, spool_root
from schemas.errors import StateError
from schemas.identity import CameraId
from schemas.runtime.daemon_thread import run_in_daemon_thread
from schemas.runtime.file_lock import exclusive
from schemas.runtime.health import Health

_log = structlog.get_logger()


async def run_camera(
    spec: CameraSpec,
    *,
    state: Path,
    registry: CollectorRegistry,
    health: Health,
    stop: asyncio.Event,
    ends_at_ms: int | None = None,
    drain_s: float = 30.0,
    link: LinkSettings | None = None,
) -> FleetOutcome:
    """Run one attached camera until its source ends, `ends_at_ms` (Unix time) or `stop`; then drain its spool.

    After a killed process the source continues at its last position. After a regular end it begins again. The camera
    is independent of other cameras in the same `state`. Raises `StateError` when its spool is in use and `SourceError`
    when its source does not open, at every start.
    """
    cameras = CameraSpecs({spec.settings.camera_id: spec})
    link = link or link_of(1).model_copy(update={"first_answer_s": FIRST_ANSWER_S})
    fleet = Fleet(cameras, state=state, registry=registry, health=health, stop=stop, link=link)
    async with fleet:
        fleet.open()
        if await fleet.open_sources(strict=True, ends_at_ms=ends_at_ms):
            await fleet.follow(ends_at_ms)
        await fleet.drain(drain_s)
    return fleet.outcome


async def run_listed_cameras(
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

    The list is read again whenever its stamp changes. If the list cannot be read, the previous cameras continue.
    `report` is a JSON file with the phase of each camera's task and its reason. If another process writes it, this one
    writes none.

    Raises `ConfigError` when the list cannot be read at the start, and `StateError` when another process has the report
    and the spools of all cameras.
    """
    stamp = cameras.stamp()
    specs = await run_in_daemon_thread(cameras.read, "camera-list")
    with nullcontext(True) if report is None else exclusive(report) as own:
        if not own:
            _require_free_spool(state, specs.runnable)
            _log.warning(
                "camera_report_in_use", file=str(report),
                reason="another process writes it: the log and /healthz alone hold the states of these cameras",
            )  # fmt: skip
            report = None
        fleet = Fleet(specs, state=state, registry=registry, health=health, stop=stop, link=link, report=report)
        async with fleet:
            await fleet.follow(ends_at_ms, cameras, stamp)
            await fleet.drain(drain_s)
    return fleet.outcome


def _require_free_spool(state: Path, cameras: Iterable[CameraId]) -> None:
    """Raise StateError if another process has the spools of all `cameras`."""
    refused: StateError | None = None
    for name in cameras:
        try:
            FolderLock(spool_root(state) / name).release()
        except StateError as error:
            refused = error
        else:
            return
    if refused is not None:
        raise refused
