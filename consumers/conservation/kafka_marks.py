"""What the rounds of a live audit ask Kafka: how far its logs reach, and how far the processors are."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from consumers.conservation.rounds import Marks, Offsets
from schemas.topics import PROCESSORS_GROUP
from schemas.transport.access import KafkaAddress, kafka_options
from schemas.transport.kafka.clients import REQUEST_S, STOP_S, leave, start


async def ask_marks(kafka: KafkaAddress, frames_topic: str, result_topics: Collection[str]) -> Marks:
    """Ask the Kafka at `kafka`. Raises what aiokafka raises when it does not answer."""
    admin = AIOKafkaAdminClient(**kafka_options(kafka), request_timeout_ms=REQUEST_S * 1000)
    consumer = AIOKafkaConsumer(
        **kafka_options(kafka), group_id=None, enable_auto_commit=False, request_timeout_ms=REQUEST_S * 1000
    )
    try:
        await start(admin)
        await start(consumer)
        async with asyncio.timeout(REQUEST_S):  # a group's coordinator is looked for for ever
            topics = await admin.describe_topics()
            committed = await admin.list_consumer_group_offsets(PROCESSORS_GROUP)
        processed = {(tp.topic, tp.partition): at.offset for tp, at in committed.items()}
        partitions = [
            TopicPartition(topic["topic"], each["partition"]) for topic in topics for each in topic["partitions"]
        ]
        results = await _ends(consumer, [tp for tp in partitions if tp.topic in result_topics])
        frames = await _ends(consumer, [tp for tp in partitions if tp.topic == frames_topic])
        return Marks(processed, results, frames)
    finally:
        await leave(admin.close, consumer.stop, deadline_s=STOP_S)


async def _ends(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> Offsets:
    if not partitions:
        return {}
    return {(tp.topic, tp.partition): end for tp, end in (await consumer.end_offsets(partitions)).items()}
