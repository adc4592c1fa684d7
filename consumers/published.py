"""Which alerts Kafka holds already: asked before one is sent whose fate nobody remembers."""

from __future__ import annotations

from typing import Final

from aiokafka import AIOKafkaConsumer

from consumers.reading.log import named
from schemas.limits import MAX_BROKER_BYTES
from schemas.transport.access import KafkaAddress, kafka_options
from schemas.transport.kafka.clients import REQUEST_S, STOP_S, leave, start

_EARLIER_MS: Final = 600_000
"""Kafka's records carry the clock of who sent them, alerts that of who raised them."""


async def published_since(kafka: KafkaAddress, topic: str, raised_ms: int) -> set[str]:
    """The ids of the alerts that `topic` holds from shortly before `raised_ms` (Unix time) on, up to its end now.

    Raises what aiokafka raises when Kafka does not answer.
    """
    consumer = AIOKafkaConsumer(
        topic,
        **kafka_options(kafka),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=MAX_BROKER_BYTES,
        request_timeout_ms=REQUEST_S * 1000,
    )
    found: set[str] = set()
    try:
        await start(consumer)
        partitions = sorted(consumer.assignment())
        ends = await consumer.end_offsets(partitions)
        starts = await consumer.offsets_for_times(dict.fromkeys(partitions, max(0, raised_ms - _EARLIER_MS)))
        for tp in partitions:
            first = starts.get(tp)
            consumer.seek(tp, ends[tp] if first is None else first.offset)
        while open_ones := [tp for tp in partitions if await consumer.position(tp) < ends[tp]]:
            for records in (await consumer.getmany(*open_ones, timeout_ms=500)).values():
                found.update(named(record) for record in records)
    finally:
        await leave(consumer.stop, deadline_s=STOP_S)
    return found
