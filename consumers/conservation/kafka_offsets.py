"""The Kafka offsets that a live audit needs: ends of the logs, and the processors' committed offsets."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from aiokafka.structs import TopicPartition

from consumers.conservation.rounds import LogOffsets, Offsets
from schemas.topics import PROCESSORS_GROUP
from schemas.transport.access import KafkaAddress
from schemas.transport.kafka.admin import Admin
from schemas.transport.kafka.reader import Reader


async def read_log_offsets(kafka: KafkaAddress, frames_topic: str, result_topics: Collection[str]) -> LogOffsets:
    """Read the offsets from the Kafka at `kafka`. Raises aiokafka's errors if Kafka does not answer."""
    async with Admin(kafka) as admin, Reader(kafka) as reader:
        partitions = [each.place for each in await admin.partitions()]
        processed = await admin.committed(PROCESSORS_GROUP)
        results = await reader.ends([tp for tp in partitions if tp.topic in result_topics])
        frames = await reader.ends([tp for tp in partitions if tp.topic == frames_topic])
    return LogOffsets(_by_name(processed), _by_name(results), _by_name(frames))


def _by_name(offsets: Mapping[TopicPartition, int]) -> Offsets:
    return {(tp.topic, tp.partition): offset for tp, offset in offsets.items()}
