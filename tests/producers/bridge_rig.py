"""Cameras, a tapped MQTT connection, a bridge and a Kafka reader, around real brokers."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.structs import TopicPartition
from paho.mqtt.enums import CallbackAPIVersion
from prometheus_client import CollectorRegistry

from infra.local.kafka import Kafka
from infra.local.mosquitto import Mosquitto
from infra.local.topics import create_topics, pointillist_topics
from producers.bridge import BridgeSettings, run_bridge
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from schemas.limits import MAX_BROKER_BYTES
from schemas.messages.frame import Encoding, encode_frame, open_own_message
from schemas.pointillist_pb2 import Confirm
from schemas.ranges import RangeSet
from schemas.runtime.health import Health
from schemas.topics import Channel, KafkaTopic, mqtt_topic, parse_mqtt_topic
from schemas.waiting import cancel
from tests.waiting import PATIENCE_S, until

SECRET = b"a fleet secret of thirty-two byte"
KEYS = KeyRing(SECRET)
BRIDGE_KEYS = KeyRing(Roots.of_fleet(SECRET).of(Role.BRIDGE))
PICTURE = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
BOOT = 0xB007
_names = count()
_prepared: set[str] = set()
"""Brokers that have the topics, which outlive their restarts."""


def new_camera() -> CameraId:
    """Return a camera that no other test has."""
    return CameraId(f"rig/camera-{next(_names)}")


def frame(camera_id: CameraId, seq: int, side: int = 32, boot_id: int = BOOT) -> bytes:
    """Return a valid frame message."""
    picture = PICTURE if side == 32 else np.zeros((side, side, 3), np.uint8)
    return encode_frame(KEYS.current(camera_id), boot_id, seq, 1000, picture, Encoding(16))


class Cameras:
    """An MQTT client that publishes at QoS 1 and collects the confirmations of all cameras."""

    def __init__(self, host: str, port: int) -> None:
        self.confirmed: dict[CameraId, RangeSet] = defaultdict(RangeSet)
        self.revisions: dict[CameraId, int] = {}
        self._connected = threading.Event()
        client = self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        client.max_inflight_messages_set(5000)
        client.reconnect_delay_set(1, 1)
        client.on_connect = self._subscribe
        client.on_subscribe = lambda *_: self._connected.set()
        client.on_disconnect = lambda *_: self._connected.clear()
        client.on_message = self._confirm
        client.connect(host, port, keepalive=60)
        client.loop_start()
        assert self._connected.wait(PATIENCE_S)

    def publish(self, topic: str, payload: bytes, qos: int = 1, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos, retain)

    def frames(self, camera_id: CameraId, seqs: range) -> None:
        """Publish these frames of a camera."""
        for seq in seqs:
            self.publish(mqtt_topic(camera_id, Channel.FRAME), frame(camera_id, seq))

    async def all_confirmed(self, camera_id: CameraId, seqs: range, seconds: float = 90.0) -> None:
        """Wait until all these frames are confirmed; the limit exceeds the bridge's 30 s deadline for Kafka."""
        await until(
            lambda: RangeSet.of(seqs).minus(self.confirmed[camera_id]) == RangeSet(), f"{seqs} confirmed", seconds
        )

    async def resend(
        self, camera_id: CameraId, seqs: range, after: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Publish unconfirmed frames again, a window at a time as a camera does, until none is left."""
        async with asyncio.timeout(2 * PATIENCE_S):
            while missing := list(RangeSet.of(seqs).minus(self.confirmed[camera_id])):
                for seq in missing[:40]:
                    self.frames(camera_id, range(seq, seq + 1))
                await asyncio.sleep(0.2)  # a camera waits this long for confirmations before it sends again
                if after is not None:
                    await after()

    async def connected(self) -> None:
        """Wait until the client is connected."""
        await until(self._connected.is_set, "the cameras connected")

    def close(self) -> None:
        """Disconnect and stop the thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def _subscribe(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe("pointillist/v1/+/+/confirm", qos=0)

    def _confirm(self, _client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        camera_id, _ = parse_mqtt_topic(message.topic)
        confirm = open_own_message(Confirm, KEYS.current(camera_id), bytes(message.payload))
        assert not message.retain
        for pair in confirm.ranges:
            self.confirmed[camera_id].add(pair.first, pair.last)
        self.revisions[camera_id] = max(confirm.ledger_revision, self.revisions.get(camera_id, 0))


class RunningBridge:
    """A bridge as a task of the test's loop."""

    def __init__(self, settings: BridgeSettings) -> None:
        self.health = Health()
        self.registry = CollectorRegistry()
        self.stopping = asyncio.Event()
        self.task = asyncio.create_task(
            run_bridge(settings, BRIDGE_KEYS, registry=self.registry, health=self.health, stop=self.stopping)
        )

    def is_healthy(self) -> bool:
        """Return the verdict of `/healthz`."""
        return self.health.report()[0]

    def condition(self, name: str) -> dict[str, object]:
        """Return one condition of its health."""
        return self.health.report()[1].get(name, {"ok": None, "detail": ""})

    def metric(self, name: str, **labels: str) -> float:
        """Return a metric's value, 0 before its first sample."""
        return self.registry.get_sample_value(name, labels) or 0.0

    async def stop(self) -> None:
        """Stop the bridge as SIGTERM does."""
        self.stopping.set()
        await self.task

    async def crash(self) -> None:
        """End the bridge without its shutdown; the broker sees the connection break."""
        await cancel(self.task)


class Rig:
    """Real brokers, cameras, a reader of Kafka and the bridges that a test starts."""

    def __init__(self, mosquitto: Mosquitto, kafka: Kafka, cameras: Cameras, consumer: AIOKafkaConsumer) -> None:
        self.mosquitto = mosquitto
        self.kafka = kafka
        self.cameras = cameras
        self.records: dict[KafkaTopic, list[ConsumerRecord[Any, Any]]] = defaultdict(list)
        self._consumer = consumer
        self._bridges: list[RunningBridge] = []
        self._group = f"rig-{next(_names)}"

    async def start_bridge(self, *, ready: bool = True, **settings: Any) -> RunningBridge:
        """Start a bridge, by default in this test's shared subscription, and wait until it is healthy."""
        options = {
            "mqtt": f"{self.mosquitto.host}:{self.mosquitto.port}",
            "kafka": self.kafka.bootstrap,
            "name": f"{self._group}-{len(self._bridges)}",
            "group": self._group,
            # A busy machine may stop the process that the test and the bridge share for longer than the usual limit.
            "keepalive_s": 60,
            # No processor reads these frames, so the credit must not hold confirmations back.
            "credit_frames": 10**9,
            **settings,
        }
        # The model rejects a camera limit below the credit; tests need one to reach it with few frames.
        small = (
            {"camera_backlog_bytes": options.pop("camera_backlog_bytes")} if "camera_backlog_bytes" in options else {}
        )
        bridge = RunningBridge(BridgeSettings(**options).model_copy(update=small))
        self._bridges.append(bridge)
        if ready:
            await until(bridge.is_healthy, "a bridge that is healthy")
        return bridge

    async def read(self) -> dict[KafkaTopic, list[ConsumerRecord[Any, Any]]]:
        """Return all records that Kafka has received since the rig began."""
        ends = await self._consumer.end_offsets(list(self._consumer.assignment()))
        for partition, end in ends.items():
            while await self._consumer.position(partition) < end:
                for found, records in (await self._consumer.getmany(timeout_ms=1000)).items():
                    self.records[KafkaTopic(found.topic)] += records
        return self.records

    async def frames_of(self, camera_id: CameraId) -> list[bytes]:
        """Return the values of this camera's records on the frames topic."""
        records = await self.read()
        return [r.value for r in records[KafkaTopic.FRAMES] if r.key == camera_id.encode()]

    async def close(self) -> None:
        """Crash all bridges that still run."""
        for bridge in self._bridges:
            if not bridge.task.done():
                await bridge.crash()


@asynccontextmanager
async def connected_rig(mosquitto: Mosquitto, kafka: Kafka) -> AsyncIterator[Rig]:
    """Connect cameras and a Kafka reader to the brokers, without a bridge."""
    if kafka.bootstrap not in _prepared:
        await create_topics(kafka.bootstrap, pointillist_topics())
        _prepared.add(kafka.bootstrap)
    topics = (KafkaTopic.FRAMES, KafkaTopic.EVENTS, KafkaTopic.DEAD_LETTERS)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, max_partition_fetch_bytes=MAX_BROKER_BYTES)
    await consumer.start()
    cameras = Cameras(mosquitto.host, mosquitto.port)
    try:
        partitions = []
        for topic in topics:
            await consumer._client._wait_on_metadata(topic.value)
            partitions += [TopicPartition(topic.value, p) for p in consumer.partitions_for_topic(topic.value)]
        consumer.assign(partitions)
        await consumer.seek_to_end()
        for partition in partitions:
            await consumer.position(partition)
        opened = Rig(mosquitto, kafka, cameras, consumer)
        try:
            yield opened
        finally:
            await opened.close()
    finally:
        cameras.close()
        kafka.resume()
        await consumer.stop()
