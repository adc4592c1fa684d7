"""Delivery of results to Kafka: one batch for each micro-batch and partition, sent until Kafka acknowledges it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Final

from processors.results.records import OutgoingRecord
from schemas.transport.access import KafkaAddress
from schemas.transport.kafka.sender import Sender
from schemas.waiting import cancel

_BATCH_BYTES: Final = 2**20
_MOST_OFFERED: Final = 256
"""Messages to cameras that Kafka does not hold yet."""

Delivered = Callable[[OutgoingRecord], None]
"""A function that receives each record when Kafka holds it."""


class Emitter:
    """Sender of results, which retries without limit. A record that is too large for Kafka is sent in its smaller
    form."""

    def __init__(self, bootstrap: KafkaAddress, on_health: Callable[[bool, str], None]) -> None:
        """`on_health` receives true while Kafka accepts records, else false and the reason."""
        self._sender = Sender(bootstrap, batch_bytes=_BATCH_BYTES, on_health=on_health)
        self._tasks: set[asyncio.Task[None]] = set()
        self._offered: set[asyncio.Task[None]] = set()
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Receives the error of a tracked task that failed because of a defect; Kafka's failures are retried."""

    async def connect(self) -> None:
        """Wait until a producer has started, without limit."""
        await self._sender.connect()

    async def send(self, topic: str, records: Sequence[OutgoingRecord], delivered: Delivered = lambda _: None) -> None:
        """Return when Kafka has acknowledged all `records`; call `delivered` with each as soon as Kafka has it."""
        await self._sender.send(topic, records, delivered, shrink=_smaller)

    def post(self, topic: str, records: Sequence[OutgoingRecord], delivered: Delivered = lambda _: None) -> None:
        """Send records in a task."""
        if records:
            self.track(self.send(topic, records, delivered), "send")

    def offer(self, topic: str, records: Sequence[OutgoingRecord]) -> None:
        """Send records in a task, or drop them while `_MOST_OFFERED` wait, as without their topic.

        For messages to cameras that a later frame repeats.
        """
        if records and len(self._offered) < _MOST_OFFERED:
            task = self.track(self.send(topic, records), "offer")
            self._offered.add(task)
            task.add_done_callback(self._offered.discard)

    def track(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run the work of a delivery in a task, until it ends or `cancel` is called."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.broken.done():
            self.broken.set_exception(error)

    async def cancel(self) -> None:
        """Cancel the tasks of deliveries."""
        await cancel(*self._tasks)

    async def close(self, deadline_s: float) -> None:
        """Close all connections within `deadline_s` seconds; undelivered records are given up."""
        await self._sender.close(deadline_s)


def _smaller(record: OutgoingRecord) -> OutgoingRecord | None:
    if record.smaller is None:
        return None
    record.value, record.smaller = record.smaller, None
    return record
