"""Which alerts Kafka holds already: asked before one is sent whose fate nobody remembers."""

from __future__ import annotations

from typing import Final

from consumers.reading.log import named
from schemas.transport.access import KafkaAddress
from schemas.transport.kafka.reader import Reader

_EARLIER_MS: Final = 600_000
"""Kafka's records carry the clock of who sent them, alerts that of who raised them."""


async def published_since(kafka: KafkaAddress, topic: str, raised_ms: int) -> set[str]:
    """The ids of the alerts that `topic` holds from shortly before `raised_ms` (Unix time) on, up to its end now.

    Raises what aiokafka raises when Kafka does not answer.
    """
    found: set[str] = set()
    async with Reader(kafka, topic) as reader:
        partitions = reader.assignment()
        ends = await reader.ends(partitions)
        reader.seek(await reader.offsets_at(partitions, max(0, raised_ms - _EARLIER_MS)))
        async for batch in reader.fetch_until(ends):
            found.update(named(record) for records in batch.values() for record in records)
    return found
