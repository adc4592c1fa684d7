from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from infra.local.mosquitto import Mosquitto
from producers.fleet import run_fleet
from producers.scenario import Scenario
from schemas.frame import is_key_frame, sign_message
from schemas.identity import CameraId
from schemas.keys import derive_camera_key
from schemas.pointillist_pb2 import Frame, KeyRequest
from schemas.runtime.health import Health
from schemas.topics import Channel, mqtt_topic
from tests.producers.fake_bridge import FakeBridge
from tests.producers.test_fleet import QUICK, keys_of, scenario_of
from tests.waiting import until

pytestmark = pytest.mark.brokers
_sites = (f"temporal-{number}" for number in range(1000))


@pytest.fixture
def bridge(mosquitto: Mosquitto) -> Iterator[FakeBridge]:
    with FakeBridge((mosquitto.host, mosquitto.port)) as fake:
        yield fake


@pytest.fixture
def still(tmp_path: Path) -> Path:
    """A still scene: one noisy picture over and over."""
    path = tmp_path / "still.npz"
    picture = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    np.savez(path, images=np.repeat(picture[None], 4, axis=0), labels=np.zeros(4, int))
    return path


class Fleet:
    """One temporal camera of a still scene, as a task of the test."""

    def __init__(self, mosquitto: Mosquitto, state: Path, still: Path, **options: object) -> None:
        source = {"kind": "dataset", "file": still, "loop": True, "offset": 0}
        camera = {"name": "cam", "profile": "temporal", "fps": 40, "source": source, **options}
        scenario: Scenario = scenario_of(next(_sites), camera)
        (self.camera_id,) = (camera.camera_id for camera in scenario.cameras())
        self.registry = CollectorRegistry()
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(
            run_fleet(
                scenario,
                mqtt=(mosquitto.host, mosquitto.port),
                state=state,
                keys=keys_of(scenario),
                registry=self.registry,
                health=Health(),
                stop=self.stop,
                drain_s=20.0,
                link=QUICK,
            )
        )

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def frames(self, bridge: FakeBridge) -> list[Frame]:
        """In the order of their sequence numbers."""
        found = [frame for identity, frame in list(bridge.frames.items()) if identity.camera_id == self.camera_id]
        return sorted(found, key=lambda frame: frame.seq)

    async def until_frames(self, bridge: FakeBridge, count: int) -> list[Frame]:

        def come() -> bool:
            assert not self.task.done()
            return len(self.frames(bridge)) >= count

        await until(come, f"{count} frames")
        return self.frames(bridge)

    async def end(self) -> None:
        self.stop.set()
        await self.task


def request(bridge: FakeBridge, camera_id: CameraId, boot_id: int, seq: int) -> tuple[str, bytes]:
    signed = sign_message(bridge.keys.current(camera_id), KeyRequest(boot_id=boot_id, seq=seq))
    return mqtt_topic(camera_id, Channel.KEY_REQUEST), signed


async def test_a_camera_sends_one_new_key_frame_for_each_that_is_missed(
    mosquitto: Mosquitto, bridge: FakeBridge, still: Path, state_dir: Path
) -> None:
    fleet = Fleet(mosquitto, state_dir, still)
    seen = await fleet.until_frames(bridge, 5)
    boot_id = seen[0].boot_id
    assert [is_key_frame(frame) for frame in seen[:5]] == [True] + 4 * [False]
    forged = sign_message(derive_camera_key(b"another fleet's secret", fleet.camera_id), KeyRequest(boot_id=boot_id))
    bridge.publish(mqtt_topic(fleet.camera_id, Channel.KEY_REQUEST), forged)
    bridge.publish(*request(bridge, fleet.camera_id, boot_id, seen[1].seq))
    bridge.publish(*request(bridge, fleet.camera_id, boot_id + 1, 0))
    before = len(await fleet.until_frames(bridge, len(fleet.frames(bridge)) + 10))
    assert sum(map(is_key_frame, fleet.frames(bridge)[:before])) == 1

    for _ in range(3):
        bridge.publish(*request(bridge, fleet.camera_id, boot_id, 0))
        await fleet.until_frames(bridge, len(fleet.frames(bridge)) + 10)
    await fleet.end()
    frames = fleet.frames(bridge)
    keys = [frame.seq for frame in frames if is_key_frame(frame)]
    assert len(keys) == 2
    assert {frame.seq - frame.key_distance for frame in frames if frame.seq > keys[1]} == {keys[1]}
    assert fleet.metric("pointillist_camera_key_frames_total", cause="asked") == 1
    assert fleet.metric("pointillist_camera_key_frames_total", cause="first") == 1
    assert fleet.metric("pointillist_camera_delta_frames_total") == len(frames) - 2
    assert fleet.metric("pointillist_camera_blocks_total", fate="sent") == 0
    assert fleet.metric("pointillist_camera_blocks_total", fate="unchanged") == 16 * (len(frames) - 2)


async def test_a_key_frame_that_the_full_spool_sheds_is_named_no_more(
    mosquitto: Mosquitto, bridge: FakeBridge, still: Path, state_dir: Path
) -> None:
    bridge.confirming = lambda identity: not identity.camera_id.startswith("temporal-")
    fleet = Fleet(mosquitto, state_dir, still, fps=200, spool={"max_bytes": 4096}, window={"frames": 4})
    await until(lambda: fleet.metric("pointillist_camera_key_frames_total", cause="shed"), "a key frame shed")
    bridge.confirming = lambda _: True
    await fleet.end()
    frames = {frame.seq: frame for frame in fleet.frames(bridge)}
    last = max(frames)
    assert is_key_frame(frames[last - frames[last].key_distance])
