"""Kafka, by its protocol: its nodes, what our topics hold, how far their readers are."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from prometheus_client import CollectorRegistry, Gauge

from infra.monitor.follow import Follower
from schemas import metrics
from schemas.topics import KafkaTopic
from schemas.transport.access import KafkaAddress, kafka_options
from schemas.transport.kafka.clients import REQUEST_S, STOP_S, leave, start

_OURS = frozenset(topic.value for topic in KafkaTopic)
_NO_GROUP = "none"


class Kafka:
    """Two clients that stay while Kafka answers, and are made anew after it did not."""

    def __init__(self, registry: CollectorRegistry, up: Gauge, address: KafkaAddress) -> None:
        self._up = up
        self._address = address
        self._brokers = metrics.KAFKA_BROKERS.on(registry)
        self._lacking = metrics.KAFKA_UNDER_REPLICATED.on(registry)
        self._held = metrics.KAFKA_HELD.on(registry)
        self._lag = metrics.KAFKA_GROUP_LAG.on(registry)
        self._lag.labels(_NO_GROUP).set(0)
        records = metrics.KAFKA_END.on(registry)
        self._records = {topic: Follower(records, topic) for topic in sorted(_OURS)}
        self._admin: AIOKafkaAdminClient | None = None
        self._consumer: AIOKafkaConsumer | None = None

    async def look(self) -> None:
        """Bring the metrics up to date. Raises what aiokafka raises, and TimeoutError, when Kafka does not answer."""
        try:
            async with asyncio.timeout(2 * REQUEST_S):  # a group's coordinator is looked for for ever
                await self._look()
        except BaseException:
            self._up.set(0)
            await self.end()
            raise
        self._up.set(1)

    async def _look(self) -> None:
        if self._admin is None or self._consumer is None:
            options = kafka_options(self._address)
            self._admin = AIOKafkaAdminClient(**options, request_timeout_ms=REQUEST_S * 1000)
            await start(self._admin)
            self._consumer = AIOKafkaConsumer(
                **options, group_id=None, enable_auto_commit=False, request_timeout_ms=REQUEST_S * 1000
            )
            await start(self._consumer)
        cluster = await self._admin.describe_cluster()
        self._brokers.set(len(cluster["brokers"]))
        topics = [topic for topic in await self._admin.describe_topics() if topic["topic"] in _OURS]
        partitions = [
            (TopicPartition(topic["topic"], each["partition"]), each)
            for topic in topics
            for each in topic["partitions"]
        ]
        self._lacking.set(sum(each["leader"] < 0 or len(each["isr"]) < len(each["replicas"]) for _, each in partitions))
        led = [tp for tp, each in partitions if each["leader"] >= 0]
        if led:
            await self._show_topics(led)

    async def _show_topics(self, partitions: list[TopicPartition]) -> None:
        assert self._admin is not None
        assert self._consumer is not None
        ends = await self._consumer.end_offsets(partitions)
        begins = await self._consumer.beginning_offsets(partitions)
        taken: Counter[str] = Counter()
        held: Counter[str] = Counter()
        for tp, end in ends.items():
            taken[tp.topic] += end
            held[tp.topic] += end - begins[tp]
        for topic, follower in self._records.items():
            follower.see(taken[topic])
            self._held.labels(topic).set(held[topic])
        for group, *_ in await self._admin.list_consumer_groups():
            committed = await self._admin.list_consumer_group_offsets(group)
            waiting = [max(0, ends[tp] - at.offset) for tp, at in committed.items() if tp in ends and at.offset >= 0]
            self._lag.labels(group).set(sum(waiting))

    async def end(self) -> None:
        """Let go of Kafka."""
        clients, self._admin, self._consumer = (self._admin, self._consumer), None, None
        stops = [each.close if isinstance(each, AIOKafkaAdminClient) else each.stop for each in clients if each]
        with suppress(asyncio.CancelledError):
            await leave(*stops, deadline_s=STOP_S)
