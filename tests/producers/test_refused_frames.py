"""A camera with rejected frames: it is degraded with the reason until no frame is rejected any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import OverSizeError, TooLargeError
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from schemas.messages.frame import sign_message
from schemas.pointillist_pb2 import DEGRADED, ONLINE, Refusal, Status
from schemas.topics import Channel, mqtt_topic
from tests.producers.fake_bridge import FakeBridge
from tests.producers.publisher_rig import Camera, camera
from tests.waiting import until

pytestmark = pytest.mark.brokers
TOO_LARGE = "frame size: expected at most 64 pixels, got 16x16. Set the camera's size to 8x8 or smaller."


def publish_refusal(
    bridge: FakeBridge,
    cam: Camera,
    boot_id: int,
    seq: int = 0,
    secret: bytes | None = None,
    reason: str = OverSizeError.reason,
) -> None:
    key = derive_camera_key(secret, cam.camera_id) if secret else cam.key
    refusal = Refusal(boot_id=boot_id, seq=seq, reason=reason, detail=TOO_LARGE)
    bridge.publish(mqtt_topic(cam.camera_id, Channel.REFUSAL), sign_message(key, refusal))


async def test_rejected_frames_degrade_a_camera_with_the_reason_until_none_is_rejected(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.publisher.publisher._REFUSED_S", 3600)
    topic = mqtt_topic(camera_id, Channel.STATUS)
    with FakeBridge(broker) as bridge:

        def status() -> tuple[int, str]:
            found = Status.FromString(bridge.topics.get(topic, b""))
            return found.state, found.detail

        async with camera(tmp_path, broker, camera_id) as cam:
            await until(lambda: status() == (ONLINE, ""), "an online camera")
            cam.publish(1)
            boot_id = cam.spool.current.boot_id
            publish_refusal(bridge, cam, boot_id + 1)
            publish_refusal(bridge, cam, boot_id, seq=9)
            publish_refusal(bridge, cam, boot_id, secret=b"another fleet's secret")
            publish_refusal(bridge, cam, boot_id)
            await until(lambda: status() == (DEGRADED, TOO_LARGE), "the degraded status")
            assert cam.publisher.refused == TOO_LARGE
            monkeypatch.setattr("producers.publisher.publisher._REFUSED_S", 0.5)
            await until(lambda: status() == (ONLINE, ""), "the online status")


async def test_refusals_of_another_boot_frame_or_key_change_nothing(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    with FakeBridge(broker) as bridge:
        async with camera(tmp_path, broker, camera_id) as cam:
            cam.publish(1)
            await until(lambda: cam.spool.frames == 0)
            boot_id = cam.spool.current.boot_id
            publish_refusal(bridge, cam, boot_id + 1)
            publish_refusal(bridge, cam, boot_id, seq=9)
            publish_refusal(bridge, cam, boot_id, secret=b"another fleet's secret")
            cam.publish(1)
            await until(lambda: cam.spool.frames == 0)  # the confirmation arrives after the refusals
            assert (cam.publisher.refused, cam.publisher.presence.degraded) == ("", False)


async def test_a_frame_that_kafka_cannot_store_is_shed_and_not_sent_again(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    with FakeBridge(broker, lambda frame: frame.seq not in (1, 2) or bridge.received[frame] > 3) as bridge:
        async with camera(tmp_path, broker, camera_id) as cam:
            cam.publish(4)
            boot_id = cam.spool.current.boot_id
            await until(lambda: cam.spool.frames == 2, "two unconfirmed frames")
            publish_refusal(bridge, cam, boot_id, seq=1, reason=TooLargeError.reason)
            publish_refusal(bridge, cam, boot_id, seq=2)  # of a processor: Kafka holds this frame
            publish_refusal(bridge, cam, boot_id, seq=3, reason=TooLargeError.reason)  # late: it is confirmed
            publish_refusal(bridge, cam, boot_id + 1, seq=2, reason=TooLargeError.reason)
            await until(lambda: set(cam.spool.current.shed) == {1}, "the frame shed")
            await cam.drain()
            [shed] = bridge.ledgers[camera_id, boot_id].shed
            assert (shed.first, shed.last) == (1, 1)
            assert bridge.received[cam.identities(2)[0]] == 4


async def test_a_frame_of_an_earlier_boot_that_kafka_cannot_store_is_shed(
    tmp_path: Path, broker: tuple[str, int], camera_id: CameraId
) -> None:
    with FakeBridge(broker, lambda _: False) as bridge:
        async with camera(tmp_path, broker, camera_id) as cam:
            cam.publish(2)
            boot_id = cam.spool.current.boot_id
        async with camera(tmp_path, broker, camera_id) as cam:
            await until(lambda: cam.publisher.link.up, "a connection")
            publish_refusal(bridge, cam, boot_id, seq=1, reason=TooLargeError.reason)
            await until(lambda: cam.spool.frames == 1, "the frame shed")
            assert cam.spool.get((boot_id, 0)) is not None
            assert set(cam.spool.ledgers.of(boot_id).shed) == {1}
