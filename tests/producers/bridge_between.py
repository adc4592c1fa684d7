"""A bridge between a scripted broker and a stand-in for Kafka, both inside the test's process."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import producers.bridge.kafka.lanes as lanes_module
import producers.bridge.mqtt.link as link_module
from producers.bridge import BridgeSettings
from schemas.identity import CameraId
from schemas.messages.frame import Encoding, encode_frame, open_own_message
from schemas.pointillist_pb2 import Confirm
from schemas.topics import Channel, mqtt_topic
from schemas.transport.mqtt.connection import Retries
from tests.producers.bridge_rig import KEYS, PICTURE, RunningBridge
from tests.producers.kafka_stand_in import KafkaStandIn
from tests.producers.scripted_broker import ScriptedBroker, scripted_broker
from tests.waiting import PATIENCE_S, until

CAMERA = CameraId("hall/door")
FRAMES = mqtt_topic(CAMERA, Channel.FRAME)


def frame(seq: int) -> bytes:
    """Return a frame message of the camera."""
    return encode_frame(KEYS.current(CAMERA), 7, seq, 1000, PICTURE, Encoding(16))


FRAME_BYTES = len(frame(1)) + lanes_module.RECORD_OVERHEAD


class Running(RunningBridge):
    """A bridge with its scripted broker and its stand-in for Kafka."""

    def __init__(self, broker: ScriptedBroker, kafka: KafkaStandIn, settings: BridgeSettings) -> None:
        super().__init__(settings)
        self.broker = broker
        self.kafka = kafka

    def sample(self, name: str, **labels: str) -> float | None:
        """Return the value of one of its own metrics; None before the first sample."""
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
            await bridge.crash()
