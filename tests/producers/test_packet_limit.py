"""A broker that limits the size of packets: frames above it are shed, and later frames are sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from benchmarks.harness.services import started
from infra.local.mosquitto import Mosquitto
from producers.bridge.mqtt.packets import PUBLISH, parse_publish
from schemas.identity import CameraId
from schemas.pointillist_pb2 import DEGRADED, ONLINE, Status
from schemas.topics import Channel, mqtt_topic
from tests.conftest import READY_S
from tests.producers.fake_bridge import FakeBridge
from tests.producers.publisher_rig import LARGE, STEADY, Camera, camera
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
                advice = "Set a smaller size for the camera, or raise the broker's limit."
                assert f"expected at most {LIMIT} bytes" in status()[1]
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
