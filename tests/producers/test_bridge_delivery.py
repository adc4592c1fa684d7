"""The bridge between a real mosquitto and a real Kafka, both of which are made to fail."""

from __future__ import annotations

import asyncio

import pytest

from infra.local.kafka import Kafka
from infra.local.mosquitto import Mosquitto
from schemas.messages.frame import sign_message
from schemas.pointillist_pb2 import Ledger, State, Status
from schemas.topics import Channel, KafkaTopic, mqtt_topic
from tests.producers.bridge_rig import BOOT, KEYS, frame, new_camera, rig
from tests.waiting import until

pytestmark = pytest.mark.brokers


async def test_every_confirmed_frame_ledger_and_status_is_in_kafka(mosquitto: Mosquitto, kafka: Kafka) -> None:
    async with rig(mosquitto, kafka) as it:
        bridge = await it.bridge()
        cameras = [new_camera() for _ in range(3)]
        for camera in cameras:
            it.cameras.frames(camera, range(100))
        ledger = sign_message(KEYS.current(cameras[0]), Ledger(boot_id=BOOT, revision=2, next=100))
        it.cameras.publish(mqtt_topic(cameras[0], Channel.EVENT), ledger)
        status = sign_message(KEYS.current(cameras[0]), Status(state=State.ONLINE, boot_id=BOOT))
        it.cameras.publish(mqtt_topic(cameras[0], Channel.STATUS), status)
        for camera in cameras:
            await it.cameras.all_confirmed(camera, range(100))
        await until(lambda: it.cameras.revisions.get(cameras[0]) == 2, "the ledger confirmed")
        for camera in cameras:
            assert await it.frames_of(camera) == [frame(camera, seq) for seq in range(100)]
        events = {
            dict(record.headers)["ce_type"]: record.value
            for record in (await it.read())[KafkaTopic.EVENTS]
            if record.key == cameras[0].encode()
        }
        assert events == {b"pointillist.v1.Ledger": ledger, b"pointillist.v1.Status": status}
        forwarded = bridge.metric("pointillist_bridge_messages_total", channel="frame", outcome="forwarded")
        assert forwarded == 300


async def test_a_killed_mosquitto_is_waited_for_and_what_comes_after_goes_through(
    mosquitto: Mosquitto, kafka: Kafka
) -> None:
    async with rig(mosquitto, kafka) as it:
        bridge = await it.bridge()
        camera = new_camera()
        it.cameras.frames(camera, range(10))
        await it.cameras.all_confirmed(camera, range(10))
        mosquitto.kill()
        await until(lambda: not bridge.holds("mqtt"), "the bridge to notice")
        early = await it.bridge(ready=False)
        await until(lambda: early.holds("kafka"), "a bridge started meanwhile to find Kafka")
        assert not early.well()
        await asyncio.to_thread(mosquitto.start)
        await until(bridge.well, "the bridge to be back")
        await until(early.well, "the bridge started meanwhile to be well")
        await it.cameras.connected()
        it.cameras.frames(camera, range(10, 20))
        await it.cameras.all_confirmed(camera, range(20))


async def test_a_hanging_mosquitto_is_noticed_and_survived(mosquitto: Mosquitto, kafka: Kafka) -> None:
    async with rig(mosquitto, kafka) as it:
        bridge = await it.bridge(keepalive_s=1)
        camera = new_camera()
        mosquitto.pause()
        await until(lambda: not bridge.holds("mqtt"), "the bridge to notice")
        mosquitto.resume()
        await until(bridge.well, "the bridge to be back")
        await it.cameras.connected()
        it.cameras.frames(camera, range(10))
        await it.cameras.all_confirmed(camera, range(10))


async def test_frames_that_arrive_while_kafka_is_dead_are_there_when_it_is_back(
    mosquitto: Mosquitto, kafka: Kafka
) -> None:
    async with rig(mosquitto, kafka) as it:
        bridge = await it.bridge()
        camera = new_camera()
        it.cameras.frames(camera, range(50))
        await it.cameras.all_confirmed(camera, range(50))
        kafka.kill()
        it.cameras.frames(camera, range(50, 100))
        await until(lambda: not bridge.holds("kafka"), "the bridge to notice")
        early = await it.bridge(ready=False)
        await asyncio.to_thread(kafka.start)
        await until(early.well, "a bridge started meanwhile to be well")
        await it.cameras.all_confirmed(camera, range(100))
        assert set(await it.frames_of(camera)) == {frame(camera, seq) for seq in range(100)}
        await until(bridge.well, "the bridge to be well again")


async def test_two_bridges_share_the_frames_double_none_and_one_goes_on_alone(
    mosquitto: Mosquitto, kafka: Kafka
) -> None:
    async with rig(mosquitto, kafka) as it:
        bridges = [await it.bridge(), await it.bridge()]
        camera = new_camera()
        it.cameras.frames(camera, range(200))
        await it.cameras.all_confirmed(camera, range(200))
        shares = [
            bridge.metric("pointillist_bridge_messages_total", channel="frame", outcome="forwarded")
            for bridge in bridges
        ]
        assert sum(shares) == 200
        assert min(shares) > 20
        assert sorted(await it.frames_of(camera)) == sorted(frame(camera, seq) for seq in range(200))
        # Until the broker notices the crash, it still gives that bridge a share, which is lost. Cameras send it again.
        mosquitto.pause()
        await bridges[0].crash()
        it.cameras.frames(camera, range(200, 250))
        mosquitto.resume()
        await it.cameras.resend(camera, range(200, 250))
