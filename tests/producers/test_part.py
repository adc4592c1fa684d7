"""The parts of a fleet that is divided over processes: each camera runs in exactly one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from infra.local.mosquitto import Mosquitto
from producers.fleet.first_start import fleet_started, forget_starts
from producers.fleet.part import Part
from producers.simulation.fleet_settings import FleetSettings
from tests.producers.fake_bridge import FakeBridge
from tests.producers.fleet_rig import run, scenario_of


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_every_camera_is_in_exactly_one_of_equally_large_parts(parts: int) -> None:
    cameras = [f"cam-{number}" for number in range(20)]
    divided = [Part(number, parts).of(cameras) for number in range(1, parts + 1)]
    assert sorted(camera for part in divided for camera in part) == sorted(cameras)
    assert max(map(len, divided)) - min(map(len, divided)) <= 1
    assert divided == [Part(number, parts).of(cameras) for number in range(1, parts + 1)]


def test_a_part_above_the_number_of_parts_is_rejected_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"part: expected at most parts, 2, got 3\. Correct one of the two\."):
        FleetSettings(scenario=Path("s.yaml"), parts=2, part=3)


def test_a_new_run_deletes_the_start_notes_of_every_division(tmp_path: Path) -> None:
    marks = [fleet_started(tmp_path), *(fleet_started(tmp_path, Part(number, 3)) for number in (1, 2, 3))]
    assert len(set(marks)) == 4
    for mark in marks:
        mark.write_text("{}")
    forget_starts(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.brokers
async def test_the_parts_of_a_fleet_publish_every_frame_once(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path
) -> None:
    scenario = scenario_of(site, {"name": "cam-{index}", "count": 3, "fps": 40})
    parts = [Part(number, 2) for number in (1, 2)]
    ended = await asyncio.gather(*(run(scenario, mosquitto, state_dir, part=part, run_s=3.0) for part in parts))
    confirmed = [identity for identity in bridge.confirmed if identity.camera_id.startswith(f"{site}/")]
    assert {identity.camera_id for identity in confirmed} == {f"{site}/cam-{number}" for number in range(3)}
    assert sum(outcome.frames_published for outcome in ended) == len(set(confirmed))
    assert all(outcome.drained for outcome in ended)
    assert all(fleet_started(state_dir, part).exists() for part in parts)
