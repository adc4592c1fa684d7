"""A bridge between a scripted broker and a stand-in for Kafka, both inside the test's process."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import producers.bridge.kafka.lanes as lanes_module
import producers.bridge.mqtt.link as link_module
from producers.bridge import BridgeSettings, run_bridge
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from schemas.messages.frame import Encoding, encode_frame, open_own_message
from schemas.pointillist_pb2 import Confirm
from schemas.runtime.health import Health
from schemas.topics import Channel, mqtt_topic
from schemas.transport.mqtt.connection import Retries
from tests.producers.bridge_rig import PICTURE
from tests.producers.kafka_stand_in import KafkaStandIn
from tests.producers.scripted_broker import ScriptedBroker, scripted_broker
from tests.waiting import PATIENCE_S, until

SECRET = b"a fleet secret of thirty-two byte"
KEYS = KeyRing(SECRET)
BRIDGE_KEYS = KeyRing(Roots.of_fleet(SECRET).of(Role.BRIDGE))
CAMERA = CameraId("hall/door")
FRAMES = mqtt_topic(CAMERA, Channel.FRAME)


def frame(seq: int) -> bytes:
    """Return a frame message of the camera."""
    return encode_frame(KEYS.current(CAMERA), 7, seq, 1000, PICTURE, Encoding(16))


FRAME_BYTES = len(frame(1)) + lanes_module.RECORD_OVERHEAD


class Running:
    """A running bridge with its scripted broker and its stand-in for Kafka."""

    def __init__(self, broker: ScriptedBroker, kafka: KafkaStandIn, settings: BridgeSettings) -> None:
        self.broker = broker
        self.kafka = kafka
        self.health = Health()
        self.registry = CollectorRegistry()
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(
            run_bridge(settings, BRIDGE_KEYS, registry=self.registry, health=self.health, stop=self.stop)
        )

    def is_healthy(self) -> bool:
        """Return whether all its health conditions hold."""
        return self.health.report()[0]

    def condition(self, name: str) -> dict[str, object]:
        """Return one condition of its health."""
        return self.health.report()[1].get(name, {"ok": None, "detail": ""})

    def metric(self, name: str, **labels: str) -> float | None:
        """Return the value of one of its metrics."""
        return self.registry.get_sample_value(f"pointillist_bridge_{name}", labels)

    def confirmed(self) -> list[int]:
        """Return the confirmed sequence numbers of the camera in the order of their confirmations."""
        found = []
        for topic, payload, retain in self.broker.published:
            if topic == mqtt_topic(CAMERA, Channel.CONFIRM):
                assert not retain
                confirm = open_own_message(Confirm, KEYS.current(CAMERA), payload)
                assert confirm.boot_id == 7
                found += [seq for pair in confirm.ranges for seq in range(pair.first, pair.last + 1)]
        return found


@asynccontextmanager
async def bridged(
    monkeypatch: pytest.MonkeyPatch, *, ready: bool = True, kafka: KafkaStandIn | None = None, **settings: Any
) -> AsyncIterator[Running]:
    """Run a bridge with short delays and these settings until the test is over.

    It is healthy when the block begins unless `ready` is false.
    """
    monkeypatch.setattr(link_module, "RETRIES", Retries(connect_s=5.0, first_s=0.01, longest_s=0.04, steady_s=10.0))
    monkeypatch.setattr(link_module, "TICK_S", 0.02)
    monkeypatch.setattr(random, "uniform", lambda *_: 0.01)
    kafka = kafka or KafkaStandIn()
    kafka.patch(monkeypatch)
    defaults = {
        "name": "b1",
        "kafka": "nowhere:1",
        "linger_ms": 5,
        "confirm_interval_ms": 10,
        "backlog_interval_s": 0.02,
        "shutdown_s": 2 * PATIENCE_S,
        "keepalive_s": 60,
        **settings,
    }
    async with scripted_broker() as broker:
        bridge = Running(broker, kafka, BridgeSettings(mqtt=f"127.0.0.1:{broker.port}", **defaults))
        try:
            if ready:
                await until(bridge.is_healthy, "a bridge that is healthy")
            yield bridge
        finally:
            if not bridge.task.done():
                bridge.task.cancel()
                await asyncio.wait([bridge.task])
