"""The bridge between a real mosquitto and a real Kafka while each of them fails."""

from __future__ import annotations

import asyncio

import pytest

from infra.local.kafka import Kafka
from infra.local.mosquitto import Mosquitto
from schemas.messages.frame import sign_message
from schemas.pointillist_pb2 import Ledger, State, Status
from schemas.topics import Channel, KafkaTopic, mqtt_topic
from tests.producers.bridge_rig import BOOT, KEYS, RunningBridge, connected_rig, frame, new_camera
from tests.waiting import until

pytestmark = pytest.mark.brokers


def forwarded(bridge: RunningBridge) -> float:
    return bridge.metric("pointillist_bridge_messages_total", channel="frame", outcome="forwarded")


async def test_every_confirmed_frame_ledger_and_status_is_in_kafka(mosquitto: Mosquitto, kafka: Kafka) -> None:
    async with connected_rig(mosquitto, kafka) as rig:
        bridge = await rig.start_bridge()
        cameras = [new_camera() for _ in range(3)]
        for camera in cameras:
            rig.cameras.frames(camera, range(100))
        ledger = sign_message(KEYS.current(cameras[0]), Ledger(boot_id=BOOT, revision=2, next=100))
        rig.cameras.publish(mqtt_topic(cameras[0], Channel.EVENT), ledger)
        status = sign_message(KEYS.current(cameras[0]), Status(state=State.ONLINE, boot_id=BOOT))
        rig.cameras.publish(mqtt_topic(cameras[0], Channel.STATUS), status)
        for camera in cameras:
            await rig.cameras.all_confirmed(camera, range(100))
        await until(lambda: rig.cameras.revisions.get(cameras[0]) == 2, "the ledger confirmed")
        for camera in cameras:
            assert await rig.frames_of(camera) == [frame(camera, seq) for seq in range(100)]

        async def events() -> dict[bytes, bytes]:
            return {
                dict(record.headers)["ce_type"]: record.value
                for record in (await rig.read())[KafkaTopic.EVENTS]
                if record.key == cameras[0].encode()
            }

        async def are_stored() -> bool:
            return await events() == {b"pointillist.v1.Ledger": ledger, b"pointillist.v1.Status": status}

        await until(are_stored, "ledger and status in Kafka")
        await until(lambda: forwarded(bridge) >= 300, "all frames counted")
        assert forwarded(bridge) == 300


async def test_the_bridge_waits_for_a_killed_mosquitto_and_then_forwards_new_frames(
    mosquitto: Mosquitto, kafka: Kafka
) -> None:
    async with connected_rig(mosquitto, kafka) as rig:
        bridge = await rig.start_bridge()
        camera = new_camera()
        rig.cameras.frames(camera, range(10))
        await rig.cameras.all_confirmed(camera, range(10))
        mosquitto.kill()
        await until(lambda: not bridge.condition("mqtt")["ok"], "the bridge to notice")
        second = await rig.start_bridge(ready=False)
        await until(lambda: second.condition("kafka")["ok"], "a bridge started meanwhile to find Kafka")
        assert not second.is_healthy()
        await asyncio.to_thread(mosquitto.start)
        await until(bridge.is_healthy, "the bridge to be back")
        await until(second.is_healthy, "the bridge started meanwhile to be healthy")
        await rig.cameras.connected()
        rig.cameras.frames(camera, range(10, 20))
        await rig.cameras.all_confirmed(camera, range(20))


async def test_the_bridge_detects_a_hanging_mosquitto_and_recovers(mosquitto: Mosquitto, kafka: Kafka) -> None:
    async with connected_rig(mosquitto, kafka) as rig:
        bridge = await rig.start_bridge(keepalive_s=1)
        camera = new_camera()
        mosquitto.pause()
        await until(lambda: not bridge.condition("mqtt")["ok"], "the bridge to notice")
        mosquitto.resume()
        await until(bridge.is_healthy, "the bridge to be back")
        await rig.cameras.connected()
        rig.cameras.frames(camera, range(10))
        await rig.cameras.all_confirmed(camera, range(10))


async def test_frames_that_arrive_while_kafka_is_down_are_stored_after_its_restart(
    mosquitto: Mosquitto, kafka: Kafka
) -> None:
    async with connected_rig(mosquitto, kafka) as rig:
        bridge = await rig.start_bridge()
        camera = new_camera()
        rig.cameras.frames(camera, range(50))
        await rig.cameras.all_confirmed(camera, range(50))
        kafka.kill()
        rig.cameras.frames(camera, range(50, 100))
        await until(lambda: not bridge.condition("kafka")["ok"], "the bridge to notice")
        second = await rig.start_bridge(ready=False)
        await asyncio.to_thread(kafka.start)
        await until(second.is_healthy, "a bridge started meanwhile to be healthy")
        await rig.cameras.all_confirmed(camera, range(100))
        assert set(await rig.frames_of(camera)) == {frame(camera, seq) for seq in range(100)}
        await until(bridge.is_healthy, "the bridge to be healthy again")


async def test_two_bridges_share_frames_without_duplicates_and_one_continues_after_the_other_crashes(
    mosquitto: Mosquitto, kafka: Kafka
) -> None:
    async with connected_rig(mosquitto, kafka) as rig:
        bridges = [await rig.start_bridge(), await rig.start_bridge()]
        camera = new_camera()
        rig.cameras.frames(camera, range(200))
        await rig.cameras.all_confirmed(camera, range(200))
        await until(lambda: sum(map(forwarded, bridges)) >= 200, "all frames counted")
        assert min(map(forwarded, bridges)) > 20
        assert sorted(await rig.frames_of(camera)) == sorted(frame(camera, seq) for seq in range(200))
        assert sum(map(forwarded, bridges)) == 200
        # The broker still routes a share to the crashed bridge until it detects the crash. Cameras resend that share.
        mosquitto.pause()
        await bridges[0].crash()
        rig.cameras.frames(camera, range(200, 250))
        mosquitto.resume()
        await rig.cameras.resend(camera, range(200, 250))
