"""Results to Kafka: one batch for each micro-batch and partition, sent until Kafka has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from processors.results.records import Outgoing
from schemas.transport.access import KafkaAddress
from schemas.transport.kafka.sender import Sender

_BATCH_BYTES: Final = 2**20


class Emitter:
    """Sends results without limit; a record that is too large for Kafka goes in its smaller form."""

    def __init__(self, bootstrap: KafkaAddress, on_health: Callable[[bool, str], None]) -> None:
        """`on_health` gets whether Kafka accepts records, and the reason if not."""
        self._sender = Sender(bootstrap, batch_bytes=_BATCH_BYTES, on_health=on_health)

    async def connect(self) -> None:
        """Wait until a producer has started, without limit."""
        await self._sender.connect()

    async def send(self, topic: str, records: Sequence[Outgoing]) -> None:
        """Return when Kafka has acknowledged all `records`; call the `done` of each as soon as Kafka has it."""
        await self._sender.send(topic, records, lambda record: record.done(), shrink=_smaller)

    async def close(self, deadline_s: float) -> None:
        """Close all connections within `deadline_s` seconds; undelivered records are given up."""
        await self._sender.close(deadline_s)


def _smaller(record: Outgoing) -> Outgoing | None:
    if record.smaller is None:
        return None
    record.value, record.smaller = record.smaller, None
    return record
