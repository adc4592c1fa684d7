"""The bridge between a real mosquitto and a real Kafka, both of which are made to fail."""

from __future__ import annotations

import asyncio

import pytest

from infra.local.kafka import Kafka
from infra.local.mosquitto import Mosquitto
from schemas.messages.frame import sign_message
from schemas.pointillist_pb2 import Ledger, State, Status
from schemas.ranges import RangeSet
from schemas.topics import Channel, KafkaTopic, mqtt_topic
from tests.producers.bridge_rig import BOOT, KEYS, Tap, frame, new_camera, rig
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


async def test_nothing_is_acknowledged_or_confirmed_before_kafka_has_it(mosquitto: Mosquitto, kafka: Kafka) -> None:
    async with rig(mosquitto, kafka) as it:
        tap = Tap(mosquitto.host, mosquitto.port)
        port = await tap.start()
        try:
            bridge = await it.bridge(mqtt=f"127.0.0.1:{port}", receive_maximum=40)
            camera = new_camera()
            it.cameras.frames(camera, range(20))
            await it.cameras.all_confirmed(camera, range(20))
            kafka.pause()
            before = len(tap.acknowledged)
            it.cameras.frames(camera, range(20, 100))
            await until(lambda: len(tap.delivered) - before == 40, "as many messages as the bridge may hold")
            await asyncio.sleep(1.0)  # that nothing more comes, only time can show
            assert len(tap.acknowledged) == before
            assert len(tap.delivered) - before == 40
            assert it.cameras.confirmed[camera] == RangeSet([(0, 19)])
            await until(lambda: not bridge.holds("kafka"), "the bridge to notice")
            kafka.resume()
            await it.cameras.all_confirmed(camera, range(100))
            await until(lambda: len(tap.acknowledged) == len(tap.delivered), "all acknowledged")
            assert tap.acknowledged == tap.delivered
            await until(bridge.well, "the bridge to be well again")
        finally:
            await it.close()
            await tap.close()


async def test_two_bridges_of_one_name_do_not_throw_each_other_out_in_a_loop(
    mosquitto: Mosquitto, kafka: Kafka
) -> None:
    async with rig(mosquitto, kafka) as it:
        tap = Tap(mosquitto.host, mosquitto.port)
        port = await tap.start()
        try:
            await it.bridge(name="twin", mqtt=f"127.0.0.1:{port}", ready=False)
            await it.bridge(name="twin", mqtt=f"127.0.0.1:{port}", ready=False)
            # A rate is measured over time: first that of quick tries, then that of slow ones.
            await asyncio.sleep(3.0)
            before = tap.connections
            assert before >= 3
            await asyncio.sleep(2.0)
            assert tap.connections - before <= 6
        finally:
            await it.close()
            await tap.close()


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
        await it.cameras.all_confirmed(camera, range(100), seconds=60)
        assert set(await it.frames_of(camera)) == {frame(camera, seq) for seq in range(100)}
        await until(bridge.well, "the bridge to be well again")


async def test_a_batch_that_kafka_does_not_acknowledge_in_time_is_sent_again_by_a_new_producer(
    mosquitto: Mosquitto, kafka: Kafka
) -> None:
    async with rig(mosquitto, kafka) as it:
        bridge = await it.bridge(delivery_deadline_s=0.5)
        camera = new_camera()
        kafka.pause()
        it.cameras.frames(camera, range(20))
        await until(
            lambda: bridge.metric("pointillist_bridge_kafka_errors_total") > 0, "the bridge to give the producer up"
        )
        kafka.resume()
        await it.cameras.all_confirmed(camera, range(20), seconds=60)
        assert set(await it.frames_of(camera)) == {frame(camera, seq) for seq in range(20)}


async def test_two_bridges_share_the_frames_and_double_none(mosquitto: Mosquitto, kafka: Kafka) -> None:
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


async def test_a_share_goes_on_when_one_of_its_bridges_dies(mosquitto: Mosquitto, kafka: Kafka) -> None:
    async with rig(mosquitto, kafka) as it:
        first = await it.bridge()
        await it.bridge()
        await first.crash()
        camera = new_camera()
        it.cameras.frames(camera, range(50))
        await it.cameras.all_confirmed(camera, range(50))
