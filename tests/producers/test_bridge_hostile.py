"""What strangers publish, beside good frames, through real brokers."""

from __future__ import annotations

import asyncio
import random
import socket
import time

import pytest

from infra.local.kafka import Kafka
from infra.local.mosquitto import Mosquitto
from producers.bridge.quota import WINDOW_MESSAGES
from schemas.pointillist_pb2 import DeadLetter
from schemas.topics import Channel, KafkaTopic, mqtt_topic
from tests.producers.bridge_rig import frame, new_camera, rig
from tests.waiting import until

pytestmark = pytest.mark.brokers


async def test_hostile_payloads_are_dead_lettered_and_harm_no_good_frame(mosquitto: Mosquitto, kafka: Kafka) -> None:
    chance = random.Random(3)
    async with rig(mosquitto, kafka) as it:
        bridge = await it.bridge()
        camera, other = new_camera(), new_camera()
        where = mqtt_topic(camera, Channel.FRAME)
        hostile = 0
        for seq in range(300):
            it.cameras.frames(camera, range(seq, seq + 1))
            good = frame(camera, seq)
            mutated = bytearray(good)
            mutated[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
            for topic, payload in (
                (where, chance.randbytes(chance.randrange(3000))),
                (where, bytes(mutated)),
                (where, good[: chance.randrange(len(good))]),
                (mqtt_topic(other, Channel.FRAME), good),
                (mqtt_topic(camera, Channel.EVENT), good),
                (f"pointillist/v1/ROOT/{seq}/frame", good),
            ):
                it.cameras.publish(topic, payload)
                hostile += 1
        await it.cameras.all_confirmed(camera, range(300))
        await until(
            lambda: (
                sum(
                    bridge.metric("pointillist_bridge_messages_total", channel=channel, outcome="dead_lettered")
                    for channel in ("frame", "event", "unknown")
                )
                == hostile
            ),
            "all hostile payloads dead-lettered",
        )
        await bridge.stop()
        records = await it.read()
        assert sorted(r.value for r in records[KafkaTopic.FRAMES]) == sorted(frame(camera, s) for s in range(300))
        found = [DeadLetter.FromString(record.value) for record in records[KafkaTopic.DEAD_LETTERS]]
        # The broker hands on what cameras of other tests, of another fleet, have said of themselves and is retained.
        letters = [letter for letter in found if not letter.origin_topic.endswith(("/status", "/meta"))]
        assert len(letters) == hostile
        assert {letter.reason for letter in letters} >= {"malformed", "bad_tag"}
        assert not any(letter.verified for letter in letters)
        assert not it.cameras.confirmed[other]


async def test_a_flood_without_acknowledgements_is_left_at_the_broker(mosquitto: Mosquitto, kafka: Kafka) -> None:
    limit = 64 * 1024
    async with rig(mosquitto, kafka) as it:
        bridge = await it.bridge(max_buffered_bytes=limit, keepalive_s=2)
        camera = new_camera()
        kafka.pause()
        paused = time.monotonic()
        for _ in range(1500):
            it.cameras.publish(mqtt_topic(camera, Channel.FRAME), b"\xff" * 2000, qos=0)
        await until(lambda: bridge.metric("pointillist_bridge_bytes_total") > 0, "the flood at the bridge")
        await until(
            lambda: not bridge.holds("kafka") and time.monotonic() > paused + 5.5,
            "Kafka gone for longer than the keep-alive",
        )
        # What one read of the socket holds may come on top.
        assert bridge.metric("pointillist_bridge_bytes_total") < limit + 300_000
        assert bridge.holds("mqtt")
        kafka.resume()
        it.cameras.frames(camera, range(10))
        await it.cameras.all_confirmed(camera, range(10))


async def test_a_camera_that_floods_loses_its_own_surplus_and_nobody_waits_for_it(
    mosquitto: Mosquitto, kafka: Kafka
) -> None:
    async with rig(mosquitto, kafka) as it:
        bridge = await it.bridge(camera_messages_per_s=10)
        flooding, calm = new_camera(), new_camera()
        # In a thread: if the bridge's loop is blocked for 90 s, the broker closes its connection and drops its frames.
        flood = await asyncio.to_thread(lambda: [frame(flooding, seq) for seq in range(2500)])
        for payload in flood:
            it.cameras.publish(mqtt_topic(flooding, Channel.FRAME), payload)
        it.cameras.frames(calm, range(10))
        await it.cameras.all_confirmed(calm, range(10))
        await until(
            lambda: bridge.metric("pointillist_bridge_over_quota_messages_total", camera_id=flooding) >= 1000,
            "what the quota has refused",
        )
        assert bridge.metric("pointillist_bridge_throttled_cameras") == 1
        assert not it.cameras.confirmed[flooding]
        assert bridge.metric("pointillist_bridge_over_quota_messages_total", camera_id=calm) == 0
        await until(lambda: bridge.metric("pointillist_bridge_unacknowledged_messages") == 0, "all acknowledged")
        await bridge.stop()
        stored = len(await it.frames_of(flooding))
        assert WINDOW_MESSAGES < stored < 1500


async def test_a_camera_above_its_quota_is_confirmed_as_its_quota_allows(mosquitto: Mosquitto, kafka: Kafka) -> None:
    async with rig(mosquitto, kafka) as it:
        bridge = await it.bridge(camera_messages_per_s=200)
        camera = new_camera()
        begun = time.monotonic()
        it.cameras.frames(camera, range(600))
        await it.cameras.all_confirmed(camera, range(600))
        assert time.monotonic() - begun > 600 / 200 - 1 - 0.2
        await until(lambda: bridge.metric("pointillist_bridge_throttled_cameras") == 0, "nobody held back")
        assert bridge.metric("pointillist_bridge_over_quota_messages_total", camera_id=camera) == 0


async def test_the_bridge_counts_what_the_broker_refuses(mosquitto: Mosquitto, kafka: Kafka) -> None:
    def connect() -> socket.socket:
        link = socket.create_connection((mosquitto.host, mosquitto.port), 10)
        link.sendall(b"\x10\x13\x00\x04MQTT\x05\x02\x00\x05\x00\x00\x06twins-")
        assert link.recv(4)[:1] == b"\x20"
        return link

    async with rig(mosquitto, kafka) as it:
        bridge = await it.bridge()

        def refusals(what: str) -> float:
            return bridge.metric("pointillist_mqtt_refusals_total", kind=what)

        before = refusals("takeover")
        with connect(), connect() as second:
            await until(lambda: refusals("takeover") == before + 1, "the takeover counted")
            second.sendall(b"\x10\x00")
            await until(lambda: refusals("protocol") == 1, "the broken protocol counted")
