"""Fleets on a real broker, and cameras without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from infra.local.mosquitto import Mosquitto
from producers.camera.camera import Camera
from producers.camera.camera_settings import CameraSettings
from producers.fleet.fleet import FleetOutcome
from producers.metrics import Instruments
from producers.publisher import Broker, LinkSettings
from producers.simulation.scenario import Scenario
from producers.simulation.simulated_fleet import run_fleet
from schemas.identity import CameraId
from schemas.keys.keys import CameraKey, KeyRing
from schemas.runtime.health import Health
from schemas.waiting import cancel
from tests.producers.fake_bridge import SECRET
from tests.producers.publisher_rig import QUICK


def scenario_of(site: str, *cameras: dict[str, object], faults: list[dict[str, object]] | None = None) -> Scenario:
    return Scenario.model_validate({"site": site, "cameras": list(cameras), "faults": faults or []})


def keys_of(scenario: Scenario) -> dict[CameraId, CameraKey]:
    ring = KeyRing(SECRET)
    return {camera.camera_id: ring.current(camera.camera_id) for camera in scenario.cameras()}


async def run(scenario: Scenario, mosquitto: Mosquitto, state: Path, **options: Any) -> FleetOutcome:
    """Run a fleet until its end; `options` are those of `run_fleet`."""
    arguments = {
        "keys": keys_of(scenario),
        "registry": CollectorRegistry(),
        "health": Health(),
        "stop": asyncio.Event(),
        "drain_s": 20.0,
        "link": QUICK,
        **options,
    }
    return await run_fleet(scenario, mqtt=(mosquitto.host, mosquitto.port), state=state, **arguments)


def offline_camera(
    settings: CameraSettings, key: CameraKey, folder: Path, registry: CollectorRegistry | None = None
) -> Camera:
    """Return a camera without a broker."""
    instruments = Instruments(registry or CollectorRegistry())
    return Camera(settings, key, folder, Broker("127.0.0.1", 1, at_once=1), LinkSettings(), instruments)


@asynccontextmanager
async def capturing(camera: Camera) -> AsyncIterator[Camera]:
    """Let a camera capture until the test is over."""
    task = asyncio.create_task(camera.run())
    try:
        yield camera
    finally:
        await cancel(task)
        await camera.close(0.1)
