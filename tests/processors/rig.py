"""Processors that read from a real Kafka, with new topics for each test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from prometheus_client import CollectorRegistry

from infra.local.topics import TopicSpec, create_topics
from processors.service import run_processor
from processors.settings import ProcessorSettings
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from schemas.messages.server_messages import check_statement, open_pictures, open_statement
from schemas.pointillist_pb2 import DeadLetter, Verdict
from schemas.runtime.health import Health
from schemas.waiting import cancel
from tests.processors.tiny import KEYS, SECRET, TRACE
from tests.waiting import PATIENCE_S, running, until

PROCESSOR_KEYS = KeyRing(Roots.of_fleet(SECRET).of(Role.PROCESSOR))

FrameName = tuple[str, int, int]
"""Camera, boot identity and sequence number of a frame."""


@dataclass
class Running:
    """A running processor: its task, stop event, health and metrics."""

    task: asyncio.Task[None]
    stop: asyncio.Event
    health: Health
    registry: CollectorRegistry

    def healthy(self) -> bool:
        if self.task.done():
            self.task.result()
        return self.health.report()[0]

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@dataclass
class Rig:
    """Topics, a bundle, and all results until now."""

    bootstrap: str
    bundle: Path
    trust: Path | None = None
    run: str = field(default_factory=lambda: uuid4().hex[:12])
    verdicts: dict[FrameName, list[Verdict]] = field(default_factory=dict)
    traces: dict[FrameName, bytes] = field(default_factory=dict)
    letters: list[DeadLetter] = field(default_factory=list)

    def topic(self, kind: str) -> str:
        return f"{kind}-{self.run}"

    def settings(self, **changes: object) -> ProcessorSettings:
        plain: dict[str, object] = {
            "kafka": self.bootstrap,
            "bundle": self.bundle,
            "group": f"group-{self.run}",
            "trust": self.trust,
            "device": "cpu",
            "backend": "torch",
            "threads": 1,
            "batch_frames": 8,
            # A certificate takes 10 passes through the network instead of 136.
            "certify_windows": 2,
            # On a busy machine no check may be skipped, no candidate given up and no frame delivered to another member.
            "strip_wait_s": 1000,
            "certify_wait_s": 1000,
            "candidate_timeout_s": 1000,
            "decoding_timeout_s": 60,
            "session_timeout_s": 20.0,
        }
        topics: dict[str, object] = {
            "frames_topic": self.topic("frames"),
            "verdicts_topic": self.topic("verdicts"),
            "dead_letters_topic": self.topic("letters"),
            "models_topic": self.topic("models"),
            "comparisons_topic": self.topic("comparisons"),
            "views_topic": self.topic("views"),
        }
        fields = {name: value for name, value in changes.items() if not name.endswith("_topic")}
        topic_changes = {name: value for name, value in changes.items() if name.endswith("_topic")}
        # The names of topics are constants of the product; here each run has its own.
        return ProcessorSettings.model_validate(plain | fields).model_copy(update=topics | topic_changes)

    def start(self, **changes: object) -> Running:
        stop, health, registry = asyncio.Event(), Health(), CollectorRegistry()
        settings = self.settings(**changes)
        task = asyncio.create_task(run_processor(settings, PROCESSOR_KEYS, registry=registry, health=health, stop=stop))
        return Running(task, stop, health, registry)

    @asynccontextmanager
    async def processor(self, **changes: object) -> AsyncIterator[Running]:
        """Start a processor, yield it once it is healthy, and stop it in good order."""
        running = self.start(**changes)
        try:
            await until(running.healthy, "a healthy processor", 2 * PATIENCE_S)  # torch may take long to start
            yield running
            running.stop.set()
            await running.task
        finally:
            await cancel(running.task)

    async def publish(self, messages: Iterable[tuple[str, bytes | None]], partition: int | None = None) -> None:
        """Write frames (camera, payload) to Kafka as the bridge would."""
        async with AIOKafkaProducer(bootstrap_servers=self.bootstrap, max_request_size=2**24) as producer:
            futures = [
                await producer.send(
                    self.topic("frames"),
                    message,
                    key=camera.encode(),
                    partition=partition,
                    headers=[("traceparent", TRACE)],
                )
                for camera, message in messages
            ]
            await asyncio.gather(*futures)

    async def collect(self) -> None:
        """Read verdicts and dead letters until the task is cancelled."""
        async with AIOKafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest") as consumer:
            consumer.assign(
                [TopicPartition(self.topic("verdicts"), p) for p in range(2)]
                + [TopicPartition(self.topic("letters"), 0)]
            )
            async for record in consumer:
                if record.topic == self.topic("letters"):
                    letter = DeadLetter.FromString(record.value)
                    if letter.verified:
                        check_statement(DeadLetter, letter.camera_id, record.value, KEYS)
                    self.letters.append(letter)
                    continue
                camera = CameraId(record.key.decode())
                verdict = open_statement(Verdict, camera, record.value, KEYS)
                open_pictures(verdict, camera, KEYS)
                name = (record.key.decode(), verdict.boot_id, verdict.seq)
                self.verdicts.setdefault(name, []).append(verdict)
                self.traces[name] = dict(record.headers).get("traceparent", b"")

    async def committed(self) -> int:
        """Return the sum of the group's committed offsets."""
        async with AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id=f"group-{self.run}") as consumer:
            partitions = [TopicPartition(self.topic("frames"), p) for p in range(4)]
            return sum([await consumer.committed(partition) or 0 for partition in partitions])


@asynccontextmanager
async def start_rig(bootstrap: str, bundle: Path) -> AsyncIterator[Rig]:
    """Create topics, and yield a rig that collects the results."""
    rig = Rig(bootstrap, bundle)
    await create_topics(
        bootstrap,
        {
            rig.topic("frames"): TopicSpec(4),
            rig.topic("verdicts"): TopicSpec(2),
            rig.topic("letters"): TopicSpec(1),
            rig.topic("comparisons"): TopicSpec(1),
        },
    )
    async with running(rig.collect()):
        yield rig


async def delete_topics(bootstrap: str, *names: str) -> None:
    """Delete topics with their records, and wait until Kafka no longer lists them."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics(list(names))

        async def are_deleted() -> bool:
            return not set(names) & set(await admin.list_topics())

        await until(are_deleted, "Kafka to delete the topics")
    finally:
        await admin.close()
