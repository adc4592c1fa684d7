"""Recorders on a real Kafka, with separate topics for each test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from prometheus_client import CollectorRegistry

from consumers.database.queries import Records, open_records
from consumers.database.recorded import RecorderDatabase
from consumers.recorder.recorder import run_recorder
from consumers.settings import RecorderSettings
from schemas.evidence.rule import EvidenceRule
from schemas.identity import CameraId
from schemas.messages.frame import open_message
from schemas.messages.server_messages import open_alert
from schemas.pointillist_pb2 import Alert, Ledger, Meta, ProbeRequest, Status, Verdict
from schemas.ranges import RangeSet
from schemas.runtime.health import Health
from tests.consumers.recorder_rig import BOOT, CAMERA, KEYS, RECORDER_KEYS, SECRET, sign_as_processor, signed
from tests.waiting import until

RULE = EvidenceRule(patience_s=1)
WAIT_S = 60.0

PROGRAM = """
import asyncio, json, signal, sys
from prometheus_client import CollectorRegistry
from consumers.recorder.recorder import run_recorder
from consumers.settings import RecorderSettings
from schemas.runtime.health import Health
from schemas.keys.keys import KeyRing

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    topics = json.loads(sys.argv[3])
    settings = RecorderSettings.model_validate_json(sys.argv[1]).model_copy(update=topics)
    keys = KeyRing(bytes.fromhex(sys.argv[2]))
    await run_recorder(settings, keys, registry=CollectorRegistry(), health=Health(), stop=stop)

asyncio.run(main())
"""


@dataclass
class Scene:
    """Fresh topics on a real Kafka, an empty SQLite database, and recorders on them."""

    settings: RecorderSettings
    producer: AIOKafkaProducer
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    health: Health = field(default_factory=Health)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @cached_property
    def _database(self) -> RecorderDatabase:
        return RecorderDatabase(self.settings.database)

    @contextlib.asynccontextmanager
    async def recorder(self, **changed: object) -> AsyncIterator[asyncio.Task[None]]:
        """Run a recorder in this event loop for the block."""
        self.stop, self.registry, self.health = asyncio.Event(), CollectorRegistry(), Health()
        settings = self.settings.model_copy(update=changed)
        task = asyncio.create_task(
            run_recorder(settings, RECORDER_KEYS, registry=self.registry, health=self.health, stop=self.stop)
        )
        try:
            await until(lambda: self.health.report()[0] or task.done())
            yield task
        finally:
            self.stop.set()
            async with asyncio.timeout(WAIT_S):
                await task

    def process(self, descriptors: int = 1024, **changed: object) -> subprocess.Popen[bytes]:
        """Start a recorder in its own process, which may open `descriptors` files."""
        settings = self.settings.model_copy(update=changed)
        limit = f'ulimit -n {descriptors} && exec "$@"'
        topics = json.dumps({name: value for name, value in vars(settings).items() if name.endswith("_topic")})
        fields = settings.model_dump_json(include=set(RecorderSettings.model_fields))
        program = [sys.executable, "-c", PROGRAM, fields, SECRET.hex(), topics]
        return subprocess.Popen(["sh", "-c", limit, "sh", *program])

    async def verdicts(self, verdicts: Iterable[Verdict], camera: str = CAMERA) -> None:
        """Publish verdicts."""
        for message in verdicts:
            value = sign_as_processor(message, camera)
            await self.producer.send(self.settings.verdicts_topic, value, key=camera.encode())
        await self.producer.flush()

    async def event(self, message: Any, camera: str = CAMERA) -> None:
        """Publish an event, signed if cameras sign its kind."""
        kind = [("ce_type", message.DESCRIPTOR.full_name.encode())]
        value = signed(message, camera) if isinstance(message, Ledger | Status | Meta) else message.SerializeToString()
        await self.producer.send_and_wait(self.settings.events_topic, value, key=camera.encode(), headers=kind)

    async def unsigned(self, message: Any, camera: str = CAMERA) -> None:
        """Publish an event without a signature."""
        kind = [("ce_type", message.DESCRIPTOR.full_name.encode())]
        value = message.SerializeToString()
        await self.producer.send_and_wait(self.settings.events_topic, value, key=camera.encode(), headers=kind)

    async def request(self) -> tuple[str, ProbeRequest]:
        """Wait for the first request to a camera on the events topic. Return it, verified as by a bridge."""
        async with AIOKafkaConsumer(
            self.settings.events_topic, bootstrap_servers=self.settings.kafka, auto_offset_reset="earliest"
        ) as consumer:
            async with asyncio.timeout(WAIT_S):
                async for record in consumer:
                    if ("ce_type", b"pointillist.v1.ProbeRequest") in record.headers:
                        camera = CameraId(record.key.decode())
                        return camera, open_message(ProbeRequest, camera, record.value, KEYS)
        raise AssertionError("the consumer has stopped")

    async def letter(self, value: bytes) -> None:
        """Publish a record on the topic of dead letters."""
        await self.producer.send_and_wait(self.settings.dead_letters_topic, value)

    def records(self) -> Records:
        """Open the database for reading."""
        return open_records(self.settings.database)

    def recorded(self, camera: str = CAMERA, boot: int = BOOT) -> RangeSet:
        """Return the sequence numbers that are recorded; none before the tables exist."""
        try:
            return Records(self._database.engine()).recorded(camera, boot)
        except Exception:  # the recorder is still creating the tables
            return RangeSet()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def metric(self, name: str, **labels: str) -> float:
        """Return a metric's value, 0 if it has none yet."""
        return self.registry.get_sample_value(name, labels) or 0.0

    async def alerts(self) -> list[Alert]:
        """Return all alerts on the alerts topic."""
        return await read_alerts(str(self.settings.kafka), self.settings.alerts_topic)


async def read_alerts(kafka: str, topic: str) -> list[Alert]:
    """Return all alerts that a topic holds in the Kafka at an address."""
    async with AIOKafkaConsumer(topic, bootstrap_servers=kafka, auto_offset_reset="earliest") as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        found: list[Alert] = []
        while len(found) < sum(ends.values()):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += [open_alert(record.key.decode(), record.value, KEYS) for record in records]
        return found
