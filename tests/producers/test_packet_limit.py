"""A broker that limits the size of packets: frames above it are shed, and later frames are sent."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from benchmarks.harness.services import started
from benchmarks.harness.videos import write_video
from infra.local.mosquitto import Mosquitto
from producers.bridge.mqtt.packets import PUBLISH, parse_publish
from producers.camera.camera import Camera as VideoCamera
from producers.camera.camera_settings import CameraSettings
from producers.metrics import Instruments
from producers.publisher import Broker
from producers.simulation.faults import FaultyLink
from producers.sources.settings import SourceSettings
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.pointillist_pb2 import DEGRADED, ONLINE, Status
from schemas.topics import Channel, mqtt_topic
from tests.conftest import READY_S
from tests.producers.fake_bridge import SECRET, FakeBridge
from tests.producers.fleet_rig import capturing
from tests.producers.publisher_rig import LARGE, STEADY, Camera, Switch, camera
from tests.producers.scripted_broker import (
    DISCONNECT,
    PACKET_TOO_LARGE,
    PUBACK,
    ScriptedBroker,
    scripted_broker,
)
from tests.waiting import until

pytestmark = pytest.mark.brokers
LIMIT = 100_000
NOISE = np.random.default_rng(3).integers(0, 256, (128, 160, 3), np.uint8)
"""A picture whose key frame takes about 20,000 bytes, and a later frame of its group much less."""
SHOWN = 8
"""Frames for which a video shows each picture."""
QUICK_AGAIN = STEADY.model_copy(update={"reconnect_s": 0.01, "reconnect_max_s": 0.1})


def frames_of(broker: ScriptedBroker, camera_id: CameraId) -> list[int]:
    """Return the sizes of the frames that the newest connection has sent."""
    topic = mqtt_topic(camera_id, Channel.FRAME)
    return [len(payload) for name, payload, _ in broker.published if name == topic]


def shed_of(cam: Camera) -> list[int]:
    return list(cam.spool.current.shed)


async def test_a_frame_above_the_brokers_packet_limit_is_shed_and_the_others_are_confirmed(
    tmp_path: Path, camera_id: CameraId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.local.mosquitto.MAX_BROKER_BYTES", LIMIT)
    monkeypatch.setattr("producers.publisher.publisher._OVERSIZE_S", 3600)
    status_topic = mqtt_topic(camera_id, Channel.STATUS)
    with started(Mosquitto(tmp_path / "broker", ready_s=READY_S)) as mosquitto, capture_logs() as logs:
        address = (mosquitto.host, mosquitto.port)
        with FakeBridge(address) as bridge:

            def status() -> tuple[int, str]:
                found = Status.FromString(bridge.topics.get(status_topic, b""))
                return found.state, found.detail

            async with camera(tmp_path / "spool", address, camera_id, link=STEADY) as cam:
                cam.publish(2)
                cam.publish(2, LARGE)
                cam.publish(2)
                boot_id = cam.spool.current.boot_id
                await until(lambda: cam.spool.frames == 0, "all frames confirmed or shed")
                await until(lambda: status()[0] == DEGRADED, "the degraded status")
                assert f"expected at most {LIMIT} bytes" in status()[1]
                for advice in ("a smaller size", "a higher crf", "the broker's limit"):
                    assert advice in status()[1]
                monkeypatch.setattr("producers.publisher.publisher._OVERSIZE_S", 0.1)
                await until(lambda: status() == (ONLINE, ""), "the online status")
                await cam.drain()
                assert set(bridge.received) == set(cam.identities(0, 1, 4, 5))
                [shed] = bridge.ledgers[camera_id, boot_id].shed
                assert (shed.first, shed.last) == (2, 3)
                assert cam.publisher.link.connections == 1
    assert [each["event"] for each in logs if each["log_level"] in ("warning", "error")] == ["frame_too_large"]


async def test_an_unacknowledged_frame_above_a_new_limit_is_not_sent_again_in_the_same_session(
    tmp_path: Path, camera_id: CameraId
) -> None:
    async with (
        scripted_broker() as broker,
        camera(tmp_path, ("127.0.0.1", broker.port), camera_id, link=QUICK_AGAIN) as cam,
    ):
        cam.publish(1, LARGE)
        cam.publish(1)
        await until(lambda: len(frames_of(broker, camera_id)) == 2, "both frames sent")
        broker.session_present = True
        broker.maximum_packet_size = LIMIT
        broker.hang_up()
        await until(lambda: len(broker.connects) == 2 and frames_of(broker, camera_id), "the small frame again")
        assert max(frames_of(broker, camera_id)) < LIMIT
        assert shed_of(cam) == [0]
        cam.publish(1)
        await until(lambda: len(frames_of(broker, camera_id)) == 2, "the later frame")
        assert len(broker.connects) == 2


@pytest.mark.parametrize("session_present", [False, True])
async def test_the_largest_frame_is_shed_after_a_broker_without_an_announced_limit_has_refused_a_packet(
    tmp_path: Path, camera_id: CameraId, session_present: bool
) -> None:
    async with (
        scripted_broker() as broker,
        camera(tmp_path, ("127.0.0.1", broker.port), camera_id, link=QUICK_AGAIN) as cam,
    ):
        cam.publish(1)
        cam.publish(1, LARGE)
        cam.publish(1)
        await until(lambda: len(frames_of(broker, camera_id)) == 3, "all frames sent")
        broker.session_present = session_present
        broker.send(DISCONNECT, bytes((PACKET_TOO_LARGE, 0)))
        await until(lambda: len(broker.connects) == 2, "a new connection")
        await until(lambda: len(frames_of(broker, camera_id)) == 2, "the small frames again")
        assert max(frames_of(broker, camera_id)) < LIMIT
        assert shed_of(cam) == [1]


async def test_a_frame_that_the_broker_refuses_without_ending_the_connection_is_shed(
    tmp_path: Path, camera_id: CameraId
) -> None:
    async with (
        scripted_broker() as broker,
        camera(tmp_path, ("127.0.0.1", broker.port), camera_id, link=QUICK_AGAIN) as cam,
    ):
        cam.publish(1)
        cam.publish(1, LARGE)
        await until(lambda: len(frames_of(broker, camera_id)) == 2, "both frames sent")
        sent = [parse_publish(first, body) for first, body in broker.packets if first & 0xF0 == PUBLISH]
        (refused,) = (each.packet_id for each in sent if len(each.payload) > LIMIT)
        broker.send(PUBACK, refused.to_bytes(2, "big") + bytes((PACKET_TOO_LARGE,)))
        await until(lambda: shed_of(cam) == [1], "the large frame shed")
        assert len(broker.connects) == 1


async def test_no_frame_of_a_group_without_its_key_frame_is_sent_and_the_next_key_frame_that_fits_is(
    tmp_path: Path, camera_id: CameraId, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 12_000
    monkeypatch.setattr("infra.local.mosquitto.MAX_BROKER_BYTES", limit)
    monkeypatch.setattr("producers.publisher.publisher._OVERSIZE_S", 3600)
    shown = [picture for picture in 2 * (NOISE, np.zeros_like(NOISE)) for _ in range(SHOWN)]
    noisy = {*range(SHOWN), *range(2 * SHOWN, 3 * SHOWN)}
    source = SourceSettings(kind="video", file=write_video(tmp_path / "film.mp4", shown, crf="10"))
    settings = CameraSettings(camera_id=camera_id, fps=20.0, profile="video", source=source)
    registry, switch, key = CollectorRegistry(), Switch(), derive_camera_key(SECRET, camera_id)
    switch.cut = True
    with started(Mosquitto(tmp_path / "broker", ready_s=READY_S)) as mosquitto, capture_logs() as logs:
        broker = Broker(mosquitto.host, mosquitto.port, at_once=1)
        made = VideoCamera(
            settings, key, tmp_path / "spool", broker, STEADY, Instruments(registry),
            wrap_link=lambda link: FaultyLink(link, switch),
        )  # fmt: skip
        spool, boot_id = made.spool, made.spool.current.boot_id

        def is_accounted_for() -> bool:
            made.tick(time.monotonic())
            return made.ended and not spool.frames

        with FakeBridge((mosquitto.host, mosquitto.port)) as bridge:
            async with capturing(made):
                # The first group waits in the spool: its key frame is too large, and its other frames are not.
                await until(lambda: spool.current.next > SHOWN, "another group")
                sizes = [frame.length for seq in range(SHOWN) if (frame := spool.get((boot_id, seq)))]
                assert sizes[0] > limit > max(sizes[1:])
                switch.cut = False
                await until(is_accounted_for, "all frames confirmed or shed")
                assert set(spool.current.shed) == noisy
    assert {frame.seq for frame in bridge.frames} == set(range(4 * SHOWN)) - noisy
    received = Counter(frame.seq - frame.key_distance for frame in bridge.frames.values())
    assert all(frame.place < received[frame.seq - frame.key_distance] for frame in bridge.frames.values())
    assert registry.get_sample_value("pointillist_camera_frames_total", {"outcome": "shed"}) == len(noisy)
    assert [each["event"] for each in logs if each["log_level"] in ("warning", "error")] == ["frame_too_large"]
