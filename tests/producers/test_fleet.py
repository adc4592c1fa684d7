"""A fleet of cameras on a real broker: pacing, ends, failures, faults, and restarts."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
import time
from collections import defaultdict
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from infra.local.mosquitto import Mosquitto
from producers.camera.fair_gate import FairGate
from producers.fleet.first_start import fleet_started
from producers.fleet.fleet import FleetOutcome
from producers.fleet.limits import link_of
from producers.publisher import LinkSettings
from producers.simulation.simulated_fleet import run_fleet
from producers.sources.opening import open_source
from producers.sources.settings import SourceSettings
from producers.sources.source import Source
from producers.spool import scan_spool
from producers.spool.folder import spool_root
from schemas.errors import SecretError, SourceError
from schemas.identity import CameraId, Identity
from schemas.messages.frame import Truth
from schemas.pointillist_pb2 import DEGRADED, Status
from schemas.runtime.health import Health
from schemas.topics import Channel, mqtt_topic
from tests.producers.fake_bridge import SECRET, FakeBridge
from tests.producers.fleet_rig import keys_of, run, scenario_of
from tests.producers.publisher_rig import STEADY
from tests.producers.scripted_broker import GRANTED_QOS_1, NOT_AUTHORIZED, scripted_broker
from tests.waiting import PATIENCE_S, until


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images.npz"
    pictures = np.arange(30, dtype=np.uint8)[:, None, None, None] + np.zeros((30, 16, 16, 3), np.uint8)
    np.savez(path, images=pictures, labels=np.arange(30))
    return path


def seqs_by_boot(identities: set[Identity]) -> dict[tuple[CameraId, int], set[int]]:
    found: dict[tuple[CameraId, int], set[int]] = defaultdict(set)
    for identity in identities:
        found[identity.camera_id, identity.boot_id].add(identity.seq)
    return found


@pytest.mark.brokers
async def test_a_fleet_ends_with_its_sources_after_every_frame_is_confirmed(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, images: Path, state_dir: Path
) -> None:
    source = {"kind": "dataset", "file": images, "stride": 3}
    scenario = scenario_of(site, {"count": 3, "fps": 0, "window": {"frames": 4}, "source": source})
    health, registry = Health(), CollectorRegistry()
    outcome = await run(scenario, mosquitto, state_dir, health=health, registry=registry)

    assert outcome == FleetOutcome(True, frames_published=30, frames_pending=0, frames_shed=0, frames_skipped=0)
    truths = [Truth.from_wire(frame.truth) for frame in bridge.frames.values()]
    assert sorted(truth.class_id for truth in truths if truth) == list(range(30))
    # The condition of the connections is updated at intervals, and the fleet may have ended before an update.
    assert health.report()[1]["spools"]["ok"]
    assert registry.get_sample_value("pointillist_camera_frames_total", {"outcome": "confirmed"}) == 30

    again = await run(scenario, mosquitto, state_dir)
    assert (again.drained, again.frames_published) == (True, 0)


async def test_a_fleet_is_unhealthy_while_the_broker_rejects_a_cameras_subscription(
    site: str, images: Path, state_dir: Path
) -> None:
    scenario = scenario_of(site, {"fps": 1, "source": {"kind": "dataset", "file": images}})
    health, stop = Health(), asyncio.Event()

    def mqtt() -> dict[str, object]:
        return health.report()[1].get("mqtt", {})

    async with scripted_broker() as broker:
        broker.suback = NOT_AUTHORIZED
        fleet = asyncio.create_task(
            run_fleet(
                scenario,
                mqtt=("127.0.0.1", broker.port),
                state=state_dir,
                keys=keys_of(scenario),
                registry=CollectorRegistry(),
                health=health,
                stop=stop,
                drain_s=0.1,
                link=STEADY.model_copy(update={"reconnect_max_s": 0.1}),
            )
        )
        await until(lambda: "1 with a refused subscription" in str(mqtt().get("detail")), "a rejected subscription")
        assert not mqtt()["ok"]
        broker.suback = GRANTED_QOS_1
        await until(lambda: bool(mqtt()["ok"]), "a fleet that is healthy")
        stop.set()
        await fleet


@pytest.mark.brokers
async def test_a_paced_fleet_keeps_its_rate_and_spreads_its_first_frames(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path
) -> None:
    scenario = scenario_of(site, {"count": 4, "fps": 1})
    outcome = await run(scenario, mosquitto, state_dir, run_s=4.0)

    assert outcome.drained
    times = [frame.captured_ms for frame in bridge.frames.values()]
    seconds = (max(times) - min(times)) / 1000  # a busy machine ends late
    assert 4 * 0.6 * seconds <= outcome.frames_published <= 4 * (seconds + 2)
    firsts = sorted(frame.captured_ms for identity, frame in bridge.frames.items() if identity.seq == 0)
    assert firsts[-1] - firsts[0] >= 400  # of the 750 ms that four phases of a second span


@pytest.mark.brokers
async def test_paced_cameras_of_a_fleet_share_one_fair_gate(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created: list[FairGate] = []
    entered: list[FairGate] = []

    class Counted(FairGate):
        def __init__(self) -> None:
            super().__init__()
            created.append(self)

        async def enter(self) -> None:
            await super().enter()
            entered.append(self)

    monkeypatch.setattr("producers.fleet.fleet.FairGate", Counted)
    outcome = await run(scenario_of(site, {"count": 3, "fps": 10}), mosquitto, state_dir, run_s=3.0)
    assert len(created) == 1
    assert len(entered) >= outcome.frames_published > 0


@pytest.mark.brokers
async def test_a_file_source_waits_for_the_window_and_sheds_nothing(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path
) -> None:
    bridge.confirming = lambda _: False
    scenario = scenario_of(site, {"fps": 0, "window": {"frames": 10}, "spool": {"max_bytes": 100_000}})
    outcome = await run(scenario, mosquitto, state_dir, run_s=4.0, drain_s=0.2)
    assert (outcome.drained, outcome.frames_published, outcome.frames_shed) == (False, 10, 0)

    bridge.confirming = lambda _: True
    later = await run(scenario, mosquitto, state_dir, run_s=0)
    assert (later.drained, later.frames_published) == (True, 0)
    assert len(bridge.confirmed) == 10


@pytest.mark.brokers
async def test_a_restarted_fleet_runs_for_the_rest_of_its_time(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path
) -> None:
    mark = fleet_started(state_dir)
    started_ms = time.time_ns() // 10**6 - 55_000
    mark.write_text(json.dumps({"started_ms": started_ms}))  # as a killed process leaves it
    outcome = await run(scenario_of(site, {"fps": 20}), mosquitto, state_dir, run_s=60)
    assert outcome.drained
    assert 0 < outcome.frames_published <= 101  # five seconds at 20 frames/s, both of their ends included
    assert json.loads(mark.read_text()) == {"started_ms": started_ms, "over": True}


@pytest.mark.brokers
async def test_a_stopped_fleet_ends_soon_and_keeps_pending_frames_on_disk(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path
) -> None:
    stop = asyncio.Event()
    scenario = scenario_of(site, {"fps": 20})
    running = asyncio.create_task(run(scenario, mosquitto, state_dir, stop=stop))

    def confirmed() -> bool:
        assert not running.done()
        return len(bridge.confirmed) >= 10

    await until(confirmed, "10 frames confirmed")
    stop.set()
    outcome = await asyncio.wait_for(running, PATIENCE_S)
    assert outcome.drained
    [boot] = scan_spool(spool_root(state_dir))
    assert boot.closed
    assert boot.next == outcome.frames_published


@pytest.mark.brokers
async def test_an_unreadable_source_stops_no_other_camera(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, tmp_path: Path, state_dir: Path
) -> None:
    missing = {"kind": "dataset", "file": tmp_path / "nothing.npz"}
    scenario = scenario_of(site, {"name": "good", "fps": 10}, {"name": "bad", "fps": 10, "source": missing})
    stop = asyncio.Event()
    running = asyncio.create_task(run(scenario, mosquitto, state_dir, stop=stop))
    topic = mqtt_topic(CameraId(f"{site}/bad"), Channel.STATUS)

    def degraded() -> bool:
        assert not running.done()
        return Status.FromString(bridge.topics.get(topic, b"")).state == DEGRADED

    await until(degraded, "a degraded camera")
    await until(lambda: bridge.confirmed, "a frame of the other camera")
    stop.set()
    outcome = await running
    assert outcome.drained
    assert {identity.camera_id for identity in bridge.confirmed} == {f"{site}/good"}


@pytest.mark.brokers
async def test_a_source_that_opens_slowly_delays_no_other_camera(
    site: str,
    mosquitto: Mosquitto,
    bridge: FakeBridge,
    images: Path,
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = threading.Event()

    def open_slowly(settings: SourceSettings, camera_index: int, *, planar: bool) -> Source:
        if camera_index == 1:
            assert answer.wait(PATIENCE_S)
        return open_source(settings, camera_index, planar=planar)

    monkeypatch.setattr("producers.camera.camera.open_source", open_slowly)
    monkeypatch.setattr("producers.fleet.fleet._OPENING_S", 0.1)
    source = {"kind": "dataset", "file": images, "loop": True}
    scenario = scenario_of(site, {"count": 2, "fps": 20, "source": source})
    stop = asyncio.Event()
    running = asyncio.create_task(run(scenario, mosquitto, state_dir, stop=stop))

    def confirmed(name: str) -> bool:
        assert not running.done()
        return any(identity.camera_id == f"{site}/{name}" for identity in bridge.confirmed)

    for name in ("cam-00", "cam-01"):
        await until(partial(confirmed, name), f"a frame of {name}")
        assert answer.is_set() == (name == "cam-01")
        answer.set()
    stop.set()
    assert (await running).drained


@pytest.mark.brokers
async def test_scene_sources_open_without_threads(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def refuse(_work: object, name: str) -> None:
        threads.append(name)
        raise RuntimeError(name)

    monkeypatch.setattr("schemas.pixels.masks._POOLS", {})
    monkeypatch.setattr("producers.camera.camera.run_in_daemon_thread", refuse)
    outcome = await run(scenario_of(site, {"count": 3, "fps": 4}), mosquitto, state_dir, run_s=4.0)

    assert threads == []
    assert outcome.drained
    assert outcome.frames_published


@pytest.mark.brokers
async def test_a_fleet_without_any_working_source_fails_at_its_first_start(
    site: str, mosquitto: Mosquitto, tmp_path: Path, state_dir: Path
) -> None:
    missing = {"kind": "dataset", "file": tmp_path / "nothing.npz"}
    with pytest.raises(SourceError, match=r"nothing\.npz"):
        await run(scenario_of(site, {"count": 2, "source": missing}), mosquitto, state_dir, drain_s=0.1)


@pytest.mark.brokers
async def test_a_patient_fleet_continues_degraded_while_its_only_camera_is_off(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path
) -> None:
    off = {"kind": "url", "address": "rtsp://127.0.0.1:9/x"}
    stop = asyncio.Event()
    scenario = scenario_of(site, {"name": "off", "source": off})
    running = asyncio.create_task(run(scenario, mosquitto, state_dir, stop=stop, patient=True))
    topic = mqtt_topic(CameraId(f"{site}/off"), Channel.STATUS)

    def degraded() -> bool:
        assert not running.done()
        return Status.FromString(bridge.topics.get(topic, b"")).state == DEGRADED

    await until(degraded, "a degraded camera")
    stop.set()
    assert (await running).drained


async def test_a_camera_without_a_key_is_named(site: str, state_dir: Path) -> None:
    with pytest.raises(SecretError, match=f"{site}/cam-00"):
        await run_fleet(
            scenario_of(site, {}),
            mqtt=("127.0.0.1", 1),
            state=state_dir,
            keys={},
            registry=CollectorRegistry(),
            health=Health(),
            stop=asyncio.Event(),
        )


@pytest.mark.brokers
async def test_a_dark_camera_captures_nothing_and_a_disconnected_one_sends_its_frames_later(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path
) -> None:
    faults: list[dict[str, object]] = [
        {"camera": "dark", "at_s": 1, "kind": "dark", "for_s": 1.5},
        {"camera": "cut", "at_s": 1, "kind": "disconnect", "for_s": 1.5},
    ]
    scenario = scenario_of(site, {"name": "dark", "fps": 20}, {"name": "cut", "fps": 20}, faults=faults)
    mark = fleet_started(state_dir)
    outcome = await run(scenario, mosquitto, state_dir, run_s=4.0)
    assert outcome.drained
    began_ms = json.loads(mark.read_text())["started_ms"] + 1000

    def times(name: str) -> list[int]:
        return sorted(frame.captured_ms for i, frame in bridge.frames.items() if i.camera_id == f"{site}/{name}")

    assert max(later - earlier for earlier, later in pairwise(times("dark"))) >= 1400
    assert [each for each in times("cut") if began_ms <= each < began_ms + 1500]


@pytest.mark.brokers
async def test_a_killed_fleet_resumes_and_loses_no_frame(
    site: str, mosquitto: Mosquitto, bridge: FakeBridge, images: Path, state_dir: Path
) -> None:
    source = f"{{'kind': 'dataset', 'file': {str(images)!r}, 'loop': True}}"
    program = textwrap.dedent(
        f"""
        import asyncio
        from pathlib import Path
        from prometheus_client import CollectorRegistry
        from producers.simulation.simulated_fleet import run_fleet
        from producers.simulation.scenario import Scenario
        from schemas.runtime.health import Health
        from schemas.keys.keys import KeyRing
        cameras = [{{"count": 2, "fps": 100, "source": {source}}}]
        scenario = Scenario.model_validate({{"site": {site!r}, "cameras": cameras}})
        ring = KeyRing({SECRET!r})
        asyncio.run(run_fleet(
            scenario, mqtt=({mosquitto.host!r}, {mosquitto.port}), state=Path({str(state_dir)!r}),
            keys={{camera.camera_id: ring.current(camera.camera_id) for camera in scenario.cameras()}},
            registry=CollectorRegistry(), health=Health(), stop=asyncio.Event()))
        """
    )

    def confirmed(wanted: int, child: subprocess.Popen[bytes]) -> bool:
        assert child.poll() is None
        boots = seqs_by_boot(bridge.confirmed)
        return len(boots) == wanted and min(map(len, boots.values())) >= 20

    for wanted in (2, 4):
        child = subprocess.Popen([sys.executable, "-c", program])
        try:
            await until(partial(confirmed, wanted, child), f"frames of {wanted} boots confirmed")
        finally:
            child.kill()
            child.wait()
    scenario = scenario_of(site, {"count": 2, "source": {"kind": "dataset", "file": images, "loop": True}})
    outcome = await run(scenario, mosquitto, state_dir, run_s=0)

    assert outcome.drained
    boots = seqs_by_boot(bridge.confirmed)
    assert len(boots) == 4
    for (camera_id, boot_id), seqs in boots.items():
        ledger = bridge.ledgers[camera_id, boot_id]
        assert ledger.closed
        assert seqs == set(range(ledger.next))
    for camera_id in {camera_id for camera_id, _ in boots}:
        frames = [(f.captured_ms, i.seq, f.truth) for i, f in bridge.frames.items() if i.camera_id == camera_id]
        first = 0 if camera_id.endswith("00") else 1
        truths = [Truth.from_wire(truth) for _, _, truth in sorted(frames)]
        share = 30 - first  # the second camera's share begins one image later
        assert [truth and truth.class_id for truth in truths] == [first + n % share for n in range(len(truths))]


def test_the_rate_of_pings_and_ledgers_is_bounded_for_large_fleets() -> None:
    for cameras in (1, 8, 250):
        assert link_of(cameras) == LinkSettings()
    for cameras in (1_000, 10_000):
        times = link_of(cameras)
        assert cameras / times.keepalive_s <= 250
        assert cameras / times.ledger_every_s <= 50


def test_a_fleet_over_tls_pings_less_often() -> None:
    assert link_of(250, secure=True) == LinkSettings()
    for cameras in (2_000, 10_000):
        assert cameras / link_of(cameras, secure=True).keepalive_s <= 100
        assert link_of(cameras, secure=True).ledger_every_s == link_of(cameras).ledger_every_s
