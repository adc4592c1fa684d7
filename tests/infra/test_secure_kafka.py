"""Kafka with TLS: certificates of the fleet's authority, passwords, and the rights of each role."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from consumers.conservation.kafka_offsets import read_log_offsets
from infra.audit.kafka_protocol import read_by_protocol
from infra.pki.kafka_rights import grant
from infra.state_folder import Layout
from processors.arrivals.group_watch import GroupReport, GroupWatch
from processors.settings import ProcessorSettings
from producers.bridge.kafka.backlog import MAX_UNRECORDED_BYTES, Backlog
from schemas.errors import BrokerError
from schemas.keys.keys import KeyRing
from schemas.topics import PROCESSORS_GROUP, RECORDED_GROUP, KafkaTopic
from schemas.transport.access import KafkaAccess, KafkaAddress, kafka_options
from schemas.transport.kafka.admin import Admin
from schemas.transport.kafka.clients import abort_producer, start_client
from schemas.transport.kafka.internals import is_hidden
from schemas.transport.kafka.reader import Reader
from tests.infra.secure import SECRET, enroll_camera
from tests.infra.secure_kafka import KafkaWithPasswords
from tests.waiting import PATIENCE_S, running, until

pytestmark = [pytest.mark.brokers, pytest.mark.usefixtures("patient_clients")]
READ_MS = 2_000
TOPICS = [topic.value for topic in KafkaTopic]


@pytest.fixture(scope="module")
def fleet(kafka_fleet: Layout) -> Layout:
    return kafka_fleet


@pytest.fixture(scope="module")
def kafka(secure_kafka: KafkaWithPasswords) -> KafkaWithPasswords:
    assert asyncio.run(writable_topics(secure_kafka.access("admin"))) == set(TOPICS)
    return secure_kafka


@contextlib.asynccontextmanager
async def producing(address: KafkaAddress) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(**kafka_options(address), enable_idempotence=True)
    try:
        await start_client(producer)
        yield producer
    finally:
        await abort_producer(producer, 2.0)


async def writable_topics(address: KafkaAddress) -> set[str]:
    """Return the topics that this role may write."""
    found = set()
    # A role without any right to write fails at the start: idempotent writes are a right of the cluster.
    with contextlib.suppress(ClusterAuthorizationFailedError):
        async with producing(address) as producer:
            for topic in TOPICS:
                with contextlib.suppress(TopicAuthorizationFailedError):
                    await producer.send_and_wait(topic, b"x", key=b"x", partition=0)
                    found.add(topic)
    return found


async def readable_topics(address: KafkaAddress) -> set[str]:
    """Return the topics from which this role reads a record. Each topic must hold one."""
    return {topic for topic in await asyncio.gather(*(_read(address, topic) for topic in TOPICS)) if topic}


async def _read(address: KafkaAddress, topic: str) -> str | None:
    consumer = AIOKafkaConsumer(**kafka_options(address), enable_auto_commit=False, auto_offset_reset="earliest")
    try:
        await consumer.start()
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        return topic if await consumer.getmany(partition, timeout_ms=READ_MS) else None
    except TopicAuthorizationFailedError:
        return None
    finally:
        await consumer.stop()


def server_log(kafka: KafkaWithPasswords) -> str:
    """Return the log of Kafka."""
    return (kafka.folder / "server.log").read_text()


async def join_group(address: KafkaAddress, group: str, topic: str) -> None:
    """Join a group and leave it. Raises Kafka's error if the role may not join."""
    consumer = AIOKafkaConsumer(topic, **kafka_options(address), group_id=group, enable_auto_commit=False)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await consumer.start()
            await consumer.getmany(timeout_ms=0)
            while not consumer.assignment():
                await consumer.getmany(timeout_ms=50)
    finally:
        await consumer.stop()


ALL = tuple(topic.value.removeprefix("pointillist.").removesuffix(".v1") for topic in KafkaTopic)


@pytest.mark.parametrize(
    ("role", "writes", "reads"),
    [
        ("bridge", ("frames", "events", "dead-letters"), ("events",)),
        ("processor", ("verdicts", "events", "dead-letters", "models", "comparisons"), ("frames", "models", "views")),
        ("recorder", ("alerts", "events"), ("verdicts", "events", "dead-letters")),
        ("audit", (), ALL),
        ("monitor", ("models",), ("models", "comparisons")),
        ("console", ("frames", "views"), ("verdicts", "models", "frames")),
        ("health", (), ()),
    ],
)
async def test_each_role_writes_and_reads_only_its_own_topics(
    kafka: KafkaWithPasswords, role: str, writes: tuple[str, ...], reads: tuple[str, ...]
) -> None:
    address = kafka.access(role)
    assert await writable_topics(address) == {f"pointillist.{name}.v1" for name in writes}
    expected = {f"pointillist.{name}.v1" for name in reads}
    found: set[str] = set()

    async def all_read() -> bool:
        found.update(await readable_topics(address))
        return found >= expected

    await until(all_read, "a record of each topic that it may read")
    assert found == expected


async def test_only_a_role_itself_may_join_its_group(kafka: KafkaWithPasswords) -> None:
    await join_group(kafka.access("processor"), PROCESSORS_GROUP, KafkaTopic.FRAMES)
    for role, topic in (("recorder", KafkaTopic.VERDICTS), ("bridge", KafkaTopic.EVENTS)):
        with pytest.raises(GroupAuthorizationFailedError):
            await join_group(kafka.access(role), PROCESSORS_GROUP, topic)
    with pytest.raises(GroupAuthorizationFailedError):
        await join_group(kafka.access("processor"), "another-group", KafkaTopic.FRAMES)


async def test_a_topic_without_a_right_to_it_does_not_count_as_deleted(kafka: KafkaWithPasswords) -> None:
    frames = KafkaTopic.FRAMES.value
    async with Admin(kafka.access("health")) as admin:
        with pytest.raises(TopicAuthorizationFailedError):
            await admin.partitions(frames)
    async with Reader(kafka.access("processor"), frames) as reader:
        assert not reader.is_missing(frames)
    consumer = AIOKafkaConsumer(**kafka_options(kafka.access("health")))
    try:
        await start_client(consumer)
        consumer.subscribe([frames])
        await until(lambda: is_hidden(consumer, frames))
        without_rights = Reader(kafka.access("health"), frames)
        without_rights._consumer = consumer
        assert not without_rights.is_missing(frames)
    finally:
        await consumer.stop()
    reports: list[GroupReport] = []
    settings = ProcessorSettings.model_validate({"kafka": "none", "bundle": "none"})
    watch = GroupWatch(settings.model_copy(update={"kafka": kafka.access("health")}), reports.append)
    async with running(watch.run()):
        # On a busy machine the first report may be a timeout.
        await until(lambda: any("TopicAuthorizationFailedError" in each.error for each in reports))
    assert not any(each.topic_lost for each in reports)


async def test_the_monitor_reads_the_offsets_of_frames_and_processors(kafka: KafkaWithPasswords) -> None:
    frames = TopicPartition(KafkaTopic.FRAMES.value, 0)
    async with AIOKafkaConsumer(
        **kafka_options(kafka.access("processor")), group_id=PROCESSORS_GROUP, enable_auto_commit=False
    ) as group:
        group.assign([frames])
        await group.commit({frames: 1})
    marks = await read_log_offsets(kafka.access("monitor"), frames.topic, [KafkaTopic.VERDICTS.value])
    assert marks.processed[frames.topic, 0] == 1
    assert marks.frames[frames.topic, 0] >= 1
    assert marks.results[KafkaTopic.VERDICTS.value, 0] >= 1


async def test_the_bridge_measures_the_lag_of_the_recorders_and_cannot_change_it(kafka: KafkaWithPasswords) -> None:
    verdicts = TopicPartition(KafkaTopic.VERDICTS.value, 0)
    async with Admin(kafka.access("recorder")) as recorder, Admin(kafka.access("bridge")) as bridge:

        async def committed() -> bool:
            with contextlib.suppress(KafkaError):  # a Kafka without a group so far has no coordinator yet
                await recorder.commit(RECORDED_GROUP, {verdicts: (0, str(MAX_UNRECORDED_BYTES + 1))})
                return True
            return False

        await until(committed, "a commit")
        with pytest.raises(GroupAuthorizationFailedError):
            await bridge.commit(RECORDED_GROUP, {verdicts: (1, "1")})
        exceeded: list[bool] = []
        backlog = Backlog(kafka.access("bridge"), "bridge", PROCESSORS_GROUP, 1, 0.02, exceeded.append, lambda _: None)
        async with running(backlog.run([0])):
            await until(lambda: exceeded == [True], "an unrecorded verdict")
            await recorder.commit(RECORDED_GROUP, {verdicts: (10**6, "1")})
            await until(lambda: exceeded == [True, False], "all recorded")


async def test_the_audit_reads_pending_frames(kafka: KafkaWithPasswords) -> None:
    found = await read_by_protocol(kafka.access("audit"), {}, KeyRing(SECRET))
    assert not [line for line in found.unread if "expected the topic" in line]
    assert found.frames >= 1


async def test_a_camera_has_no_rights_in_kafka(kafka: KafkaWithPasswords, fleet: Layout) -> None:
    address = KafkaAccess(kafka.listen, enroll_camera(fleet, "site/kafka"))
    assert await writable_topics(address) == set()
    assert await readable_topics(address) == set()
    admin = AIOKafkaAdminClient(**kafka_options(address))
    await admin.start()
    try:
        answer: Any = await admin.create_topics([NewTopic("pointillist.mine.v1", 1, 1)])
    finally:
        await admin.close()
    assert answer.topic_errors[0][1] != 0
    # Kafka counts refusals only in JMX, and writes them to its log.
    assert "is Denied operation" in server_log(kafka)


async def test_a_role_without_the_right_cannot_grant_rights(kafka: KafkaWithPasswords) -> None:
    with pytest.raises((BrokerError, KafkaError)):
        await grant(kafka.access("recorder"))
