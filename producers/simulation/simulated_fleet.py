"""A simulated fleet: the cameras of a scenario, which start together and keep one clock through restarts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from producers.fleet.camera_spec import CameraSpec, CameraSpecs
from producers.fleet.first_start import Start, fleet_started
from producers.fleet.fleet import Fleet, FleetOutcome
from producers.fleet.limits import link_of
from producers.fleet.part import WHOLE, Part
from producers.publisher import LinkSettings
from producers.simulation.faults import FaultPlan, FaultyLink, FaultySource
from producers.simulation.red_team import RedTeam
from producers.simulation.scenario import Scenario
from schemas.clock import unix_ms
from schemas.errors import SecretError, StateError
from schemas.identity import CameraId
from schemas.keys.keys import CameraKey
from schemas.runtime.health import Health
from schemas.transport.access import Tls

_log = structlog.get_logger()


async def run_fleet(
    scenario: Scenario,
    *,
    mqtt: tuple[str, int],
    state: Path,
    keys: Mapping[CameraId, CameraKey],
    registry: CollectorRegistry,
    health: Health,
    stop: asyncio.Event,
    run_s: float | None = None,
    drain_s: float = 30.0,
    link: LinkSettings | None = None,
    again: bool = False,
    patient: bool = False,
    tls: Mapping[CameraId, Tls] | None = None,
    part: Part = WHOLE,
) -> FleetOutcome:
    """Run the cameras until their sources end, `run_s` or `stop`; then drain the spools.

    A fleet that is started again in the same `state` continues the last run, however that ended; `run_s` counts in
    seconds from the first capture. After the end of its time it only drains, also when it was killed in the drain.
    With `again` it then begins another run, also when all sources had ended. `tls` holds the certificates of each
    camera; None is no TLS. Only the cameras of `part` run here. Other parts are other processes.

    Raises `SecretError` without a key for each camera, `ConfigError` when a generator of an attack cannot be run,
    `StateError` when a spool is in use, and, at the very first start, `SourceError` when no camera has a source that
    opens. A `patient` fleet retries sources that have an address instead.
    """
    specs, plans = _specs_of(scenario, part, mqtt, keys, tls)
    patient = patient and any(spec.settings.source.kind == "url" for spec in specs.runnable.values())
    start = Start(fleet_started(state, part))
    link = link or link_of(len(scenario.cameras()), secure=specs.secure)
    fleet = Fleet(specs, state=state, registry=registry, health=health, stop=stop, link=link, starts_together=True)
    async with fleet:
        opened = fleet.open()
        started_ms, over = start.first()
        ends_at_ms = _end_ms(started_ms, run_s)
        is_past = ends_at_ms is not None and ends_at_ms <= unix_ms()
        if again and (over or is_past):
            _log.info("run_repeated", reason=f"the run that began at {started_ms} ms is over")
            started_ms, ends_at_ms, is_past = None, None, False
        if not is_past:
            if started_ms is None:
                for each in opened:
                    each.spool.rewind()
            if await fleet.open_sources(strict=started_ms is None and not patient, ends_at_ms=ends_at_ms):
                if started_ms is None:
                    started_ms = start.note(unix_ms())
                    ends_at_ms = _end_ms(started_ms, run_s)
                for plan in plans:
                    plan.begin(started_ms)
                await fleet.follow(ends_at_ms)
                if not stop.is_set():
                    with contextlib.suppress(StateError):  # then the next start finds that out by itself
                        start.note(started_ms, over=True)
        await fleet.drain(drain_s)
    return fleet.outcome


def _specs_of(
    scenario: Scenario,
    part: Part,
    mqtt: tuple[str, int],
    keys: Mapping[CameraId, CameraKey],
    tls: Mapping[CameraId, Tls] | None,
) -> tuple[CameraSpecs, list[FaultPlan]]:
    """Return the cameras of `part`, and the plans of their faults. Raises `SecretError`, `ConfigError`."""
    everyone = scenario.cameras()
    missing = [camera.camera_id for camera in part.of(everyone) if camera.camera_id not in keys]
    if missing:
        raise SecretError(
            f"keys: expected one for each camera, got none for {missing[0]} ({len(missing)} in all). Run "
            "`pointillist key --scenario`."
        )
    red_team = RedTeam(scenario.generators)
    plans: list[FaultPlan] = []
    specs: dict[CameraId, CameraSpec] = {}
    for number, camera in part.of(list(enumerate(everyone))):
        name = camera.camera_id
        spec = CameraSpec(
            camera, keys[name], mqtt, tls[name] if tls is not None else None,
            phase_s=number / len(everyone) / camera.fps if camera.fps else 0.0,
        )  # fmt: skip
        if faults := [fault for fault in scenario.faults if name.partition("/")[2] in fault.cameras]:
            plan = FaultPlan(faults)
            plans.append(plan)
            spec = replace(
                spec,
                wrap_source=partial(FaultySource, plan=plan, red_team=red_team),
                wrap_link=partial(FaultyLink, plan=plan),
            )
        specs[name] = spec
    return CameraSpecs(specs), plans


def _end_ms(started_ms: int | None, run_s: float | None) -> int | None:
    """Return the end of a run, Unix time; None without a limit, or before the first capture."""
    return None if started_ms is None or run_s is None else started_ms + round(1000 * run_s)
