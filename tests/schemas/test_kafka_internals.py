"""The private members of aiokafka that the transport layer uses, checked against a real Kafka."""

from __future__ import annotations

import uuid

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import ListGroupsRequest

from infra.local.kafka import Kafka
from schemas.transport.kafka.admin import Admin
from schemas.transport.kafka.clients import abort_producer, start_client
from schemas.transport.kafka.internals import (
    NetworkClient,
    current_assignment,
    force_close,
    missing_replicas,
    send_request,
    sender_task,
)
from tests.conftest import TopicFactory
from tests.waiting import until

pytestmark = [pytest.mark.brokers, pytest.mark.usefixtures("patient_clients")]


@pytest.mark.parametrize("client", [AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient])
async def test_the_network_client_of_each_client_has_connections_and_limits(
    kafka: Kafka, kafka_topics: TopicFactory, client: type
) -> None:
    topic = await kafka_topics()
    instance = client(bootstrap_servers=kafka.bootstrap, request_timeout_ms=7000)
    network = NetworkClient.inside(instance)
    assert network is not None
    assert network.request_timeout_s == 7.0
    seen: list[set[int]] = []
    limits: list[int] = []

    def limit(api_key: int) -> float:
        limits.append(api_key)
        return 5.0

    network.on_metadata(seen.append)
    network.limit_requests(limit)
    try:
        await instance.start()
        await (instance.partitions_for(topic) if isinstance(instance, AIOKafkaProducer) else _metadata(instance))
        assert seen
        assert network.connections()
        assert limits
    finally:
        await (instance.close() if isinstance(instance, AIOKafkaAdminClient) else instance.stop())


async def _metadata(client: AIOKafkaConsumer | AIOKafkaAdminClient) -> None:
    if isinstance(client, AIOKafkaAdminClient):
        await client.describe_cluster()
    else:
        await client.topics()


async def test_a_consumer_is_closed_forcibly(kafka: Kafka, kafka_topics: TopicFactory) -> None:
    topic = await kafka_topics()
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap)
    await start_client(consumer)
    assert missing_replicas(consumer, [topic]) == 0
    for step in force_close(consumer):
        await step()
    network = NetworkClient.inside(consumer)
    assert network is not None
    assert not any(connection.connected() for _, connection in network.connections())
    await consumer.stop()


async def test_each_rebalance_replaces_the_assignment(kafka: Kafka, kafka_topics: TopicFactory) -> None:
    topic, group = await kafka_topics(2), f"group-{uuid.uuid4().hex}"
    options = {"bootstrap_servers": kafka.bootstrap, "group_id": group, "heartbeat_interval_ms": 100}
    async with AIOKafkaConsumer(topic, **options) as first:
        await until(lambda: len(first.assignment()) == 2)
        before = current_assignment(first)
        await first.end_offsets(first.assignment())
        assert current_assignment(first) is before
        async with AIOKafkaConsumer(topic, **options):
            await until(lambda: len(first.assignment()) == 1)
            assert current_assignment(first) is not before


async def test_a_producer_is_aborted_with_its_sender_task(kafka: Kafka) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    assert sender_task(producer) is None
    await start_client(producer)
    task = sender_task(producer)
    await abort_producer(producer, 2.0)
    assert task.done()
    await producer.stop()  # the producer is closed: nothing is left to do


async def test_a_request_without_a_method_is_answered(kafka: Kafka) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    try:
        await start_client(admin)
        assert (await send_request(admin, ListGroupsRequest())).error_code == 0
    finally:
        await admin.close()


async def _has_partitions(admin: Admin, topic: str, partitions: int) -> bool:
    return len(await admin.partitions(topic)) == partitions


async def test_the_admin_client_describes_the_cluster_its_partitions_and_groups(
    kafka: Kafka, kafka_topics: TopicFactory
) -> None:
    topic, group = await kafka_topics(2), f"group-{uuid.uuid4().hex}"
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=kafka.bootstrap, group_id=group, enable_auto_commit=False, client_id="member"
    )
    async with Admin(kafka.bootstrap, name="tester") as admin:
        cluster = await admin.cluster()
        assert cluster.controller in cluster.nodes
        await until(lambda: _has_partitions(admin, topic, 2), "the new topic")
        partitions = await admin.partitions(topic)
        assert sorted(each.place.partition for each in partitions) == [0, 1]
        assert all(each.leader in each.in_sync == each.replicas for each in partitions)
        assert set(partitions) <= set(await admin.partitions())
        try:
            await start_client(consumer)
            state = await admin.group(group)
            assert state.settled
            assert state.members == {"member": consumer.assignment()}
            assert await admin.committed(group) == {}
            offsets = dict.fromkeys(consumer.assignment(), 0)
            await consumer.commit(offsets)
            assert await admin.committed(group) == offsets
            assert group in await admin.groups()
        finally:
            await consumer.stop()
