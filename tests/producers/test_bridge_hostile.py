"""Hostile messages among valid frames, through real brokers."""

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
from tests.producers.bridge_rig import connected_rig, frame, new_camera
from tests.waiting import until

pytestmark = pytest.mark.brokers


async def test_hostile_payloads_become_dead_letters_and_every_valid_frame_is_stored(
    mosquitto: Mosquitto, kafka: Kafka
) -> None:
    chance = random.Random(3)
    async with connected_rig(mosquitto, kafka) as rig:
        bridge = await rig.start_bridge()
        camera, other = new_camera(), new_camera()
        frame_topic = mqtt_topic(camera, Channel.FRAME)
        hostile = 0
        for seq in range(300):
            rig.cameras.frames(camera, range(seq, seq + 1))
            good = frame(camera, seq)
            mutated = bytearray(good)
            mutated[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
            for topic, payload in (
                (frame_topic, chance.randbytes(chance.randrange(3000))),
                (frame_topic, bytes(mutated)),
                (frame_topic, good[: chance.randrange(len(good))]),
                (mqtt_topic(other, Channel.FRAME), good),
                (mqtt_topic(camera, Channel.EVENT), good),
                (f"pointillist/v1/ROOT/{seq}/frame", good),
            ):
                rig.cameras.publish(topic, payload)
                hostile += 1
        await rig.cameras.all_confirmed(camera, range(300))
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
        records = await rig.read()
        assert sorted(r.value for r in records[KafkaTopic.FRAMES]) == sorted(frame(camera, s) for s in range(300))
        found = [DeadLetter.FromString(record.value) for record in records[KafkaTopic.DEAD_LETTERS]]
        # The broker also delivers retained status and meta messages of another fleet's cameras, left by other tests.
        letters = [letter for letter in found if not letter.origin_topic.endswith(("/status", "/meta"))]
        assert len(letters) == hostile
        assert {letter.reason for letter in letters} >= {"malformed", "bad_tag"}
        assert not any(letter.verified for letter in letters)
        assert not rig.cameras.confirmed[other]


async def test_qos_0_messages_beyond_the_buffer_stay_at_the_broker_while_kafka_hangs(
    mosquitto: Mosquitto, kafka: Kafka
) -> None:
    limit = 64 * 1024
    async with connected_rig(mosquitto, kafka) as rig:
        bridge = await rig.start_bridge(max_buffered_bytes=limit, keepalive_s=2)
        camera = new_camera()
        kafka.pause()
        paused = time.monotonic()
        for _ in range(1500):
            rig.cameras.publish(mqtt_topic(camera, Channel.FRAME), b"\xff" * 2000, qos=0)
        await until(lambda: bridge.metric("pointillist_bridge_bytes_total") > 0, "the flood at the bridge")
        await until(
            lambda: not bridge.condition("kafka")["ok"] and time.monotonic() > paused + 5.5,
            "Kafka gone for longer than the keep-alive",
        )
        # One read of the socket may exceed the limit.
        assert bridge.metric("pointillist_bridge_bytes_total") < limit + 300_000
        assert bridge.condition("mqtt")["ok"]
        kafka.resume()
        rig.cameras.frames(camera, range(10))
        await rig.cameras.all_confirmed(camera, range(10))


async def test_a_flooding_camera_loses_only_its_own_surplus_and_delays_no_other_camera(
    mosquitto: Mosquitto, kafka: Kafka
) -> None:
    async with connected_rig(mosquitto, kafka) as rig:
        bridge = await rig.start_bridge(camera_messages_per_s=10)
        flooding, calm = new_camera(), new_camera()
        # In a thread: if the bridge's loop is blocked for 90 s, the broker closes its connection and drops its frames.
        flood = await asyncio.to_thread(lambda: [frame(flooding, seq) for seq in range(2500)])
        for payload in flood:
            rig.cameras.publish(mqtt_topic(flooding, Channel.FRAME), payload)
        rig.cameras.frames(calm, range(10))
        await rig.cameras.all_confirmed(calm, range(10))
        await until(
            lambda: bridge.metric("pointillist_bridge_over_quota_messages_total", camera_id=flooding) >= 1000,
            "messages over the quota",
        )
        assert bridge.metric("pointillist_bridge_throttled_cameras") == 1
        assert not rig.cameras.confirmed[flooding]
        assert bridge.metric("pointillist_bridge_over_quota_messages_total", camera_id=calm) == 0
        await until(lambda: bridge.metric("pointillist_bridge_unacknowledged_messages") == 0, "all acknowledged")
        await bridge.stop()
        stored = len(await rig.frames_of(flooding))
        assert WINDOW_MESSAGES < stored < 1500


async def test_a_camera_above_its_quota_is_confirmed_at_the_rate_of_its_quota(
    mosquitto: Mosquitto, kafka: Kafka
) -> None:
    async with connected_rig(mosquitto, kafka) as rig:
        bridge = await rig.start_bridge(camera_messages_per_s=200)
        camera = new_camera()
        begun = time.monotonic()
        rig.cameras.frames(camera, range(600))
        await rig.cameras.all_confirmed(camera, range(600))
        assert time.monotonic() - begun > 600 / 200 - 1 - 0.2
        await until(lambda: bridge.metric("pointillist_bridge_throttled_cameras") == 0, "no throttled camera")
        assert bridge.metric("pointillist_bridge_over_quota_messages_total", camera_id=camera) == 0


async def test_the_bridge_counts_clients_that_the_broker_rejects(mosquitto: Mosquitto, kafka: Kafka) -> None:
    def connect() -> socket.socket:
        link = socket.create_connection((mosquitto.host, mosquitto.port), 10)
        link.sendall(b"\x10\x13\x00\x04MQTT\x05\x02\x00\x05\x00\x00\x06twins-")
        assert link.recv(4)[:1] == b"\x20"
        return link

    async with connected_rig(mosquitto, kafka) as rig:
        bridge = await rig.start_bridge()

        def refusals(kind: str) -> float:
            return bridge.metric("pointillist_mqtt_refusals_total", kind=kind)

        before = refusals("takeover")
        with connect(), connect() as second:
            await until(lambda: refusals("takeover") == before + 1, "the takeover counted")
            second.sendall(b"\x10\x00")
            await until(lambda: refusals("protocol") == 1, "the broken protocol counted")
