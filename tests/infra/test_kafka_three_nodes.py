"""Three Kafka nodes without the rest of the system: records survive the loss of any one node."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from infra.audit.kafka_files import read_topic
from infra.local.kafka import Kafka, KafkaNodes
from infra.local.kafka_quorum import kafka_data
from infra.local.ports import Ports
from infra.local.replicas import await_replicas
from infra.local.topics import TopicSpec, create_topics, usual_replication
from schemas.transport.kafka.clients import abort_producer, close_clients, start_client
from tests.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.brokers, pytest.mark.slow]
TOPIC = "three.nodes"
PARTITIONS = 3
LIMIT_MS = 60_000
"""Request timeout of a client, and its usual wait for a node that hangs."""
GAP_S = 40.0


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaNodes]:
    state = tmp_path_factory.mktemp("nodes")
    found = KafkaNodes(state, Ports(state), 3)
    try:
        with ThreadPoolExecutor(3) as starting:
            list(starting.map(Kafka.start, found.nodes))
        asyncio.run(create_topics(found.bootstrap, {TOPIC: TopicSpec(PARTITIONS, 3)}))
        asyncio.run(await_replicas(found.bootstrap, 2 * PATIENCE_S))
        yield found
    finally:
        for node in found.nodes:
            if node.poll() is None:
                node.resume()
                node.kill()


async def write(kafka: KafkaNodes, values: list[bytes], over_s: float = 0.0) -> float:
    """Write `values` to all partitions in turn, over at least `over_s`. Return the longest wait for an answer in s."""
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap, enable_idempotence=True, acks="all", request_timeout_ms=LIMIT_MS
    )
    longest = 0.0
    try:
        await start_client(producer)
        for number, value in enumerate(values):
            begun = time.monotonic()
            async with asyncio.timeout(LIMIT_MS / 1000):
                await producer.send_and_wait(TOPIC, value, partition=number % PARTITIONS)
            longest = max(longest, time.monotonic() - begun)
            await asyncio.sleep(over_s / len(values))
    finally:
        await abort_producer(producer, 2.0)
    return longest


async def read_all(kafka: KafkaNodes) -> set[bytes]:
    """Return all records that a consumer reads."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    partitions = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
    found: set[bytes] = set()
    try:
        await start_client(consumer)
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found |= {record.value for record in records}
    finally:
        await close_clients(consumer.stop, deadline_s=5.0)
    return found


async def test_kafka_s_internal_topics_need_two_of_three_acknowledgements(kafka: KafkaNodes) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id="any", enable_auto_commit=False)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    try:
        await start_client(consumer)
        consumer.assign([TopicPartition(TOPIC, 0)])
        await consumer.commit({TopicPartition(TOPIC, 0): 0})
        await start_client(admin)

        async def have_metadata() -> bool:
            return all(each["partitions"] for each in await admin.describe_topics([TOPIC, "__consumer_offsets"]))

        await until(have_metadata, "the metadata of Kafka's own topic")
        for topic in await admin.describe_topics([TOPIC, "__consumer_offsets"]):
            assert {len(each["replicas"]) for each in topic["partitions"]} == {3}
            resource = ConfigResource(ConfigResourceType.TOPIC, topic["topic"])
            ((_, _, _, _, settings),) = (await admin.describe_configs([resource]))[0].resources
            values = {name: value for name, value, *_ in settings}
            assert values["min.insync.replicas"] == "2"
            assert values["unclean.leader.election.enable"] == "false"
    finally:
        await close_clients(consumer.stop, admin.close, deadline_s=5.0)


async def test_the_default_replication_on_three_nodes_is_three(kafka: KafkaNodes) -> None:
    assert await usual_replication(kafka.bootstrap) == 3


async def test_clients_leave_a_node_that_hangs_long_before_their_request_timeout(kafka: KafkaNodes) -> None:
    values = [b"hang %d" % number for number in range(60)]
    writing = asyncio.create_task(write(kafka, values, over_s=1.5))
    await asyncio.sleep(0.5)
    kafka.nodes[0].pause()
    try:
        assert await writing < GAP_S
        assert set(values) <= await read_all(kafka)
    finally:
        kafka.nodes[0].resume()
    await await_replicas(kafka.bootstrap, 2 * PATIENCE_S)


async def test_a_node_with_a_new_disk_votes_again_and_no_record_is_lost_when_another_is_killed(
    kafka: KafkaNodes,
) -> None:
    before = [b"before %d" % number for number in range(9)]
    await write(kafka, before)
    lost, other = kafka.nodes[1], kafka.nodes[2]
    lost.kill()
    shutil.rmtree(lost.data)
    during = [b"during %d" % number for number in range(9)]
    await write(kafka, during)
    await asyncio.to_thread(lost.start)
    await await_replicas(kafka.bootstrap, 2 * PATIENCE_S)
    assert {record.value for record in read_topic(lost.data, TOPIC)} >= {*before, *during}
    # After the second kill, a controller needs the vote of the node with the new disk.
    after = [b"after %d" % number for number in range(60)]
    writing = asyncio.create_task(write(kafka, after, over_s=1.5))
    await asyncio.sleep(0.5)
    other.kill()
    assert await writing < GAP_S
    assert await read_all(kafka) >= {*before, *during, *after}
    assert {r.value for r in read_topic(kafka_data(lost.folder.parent), TOPIC)} >= {*before, *during, *after}
