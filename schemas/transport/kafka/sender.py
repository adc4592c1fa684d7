"""The one sender of Kafka: batches of one partition each, acknowledged by all in-sync replicas.

A batch whose fate is unknown is sent again, and readers drop duplicates by identity.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from aiokafka.partitioner import murmur2
from aiokafka.structs import TopicPartition

from schemas.clock import unix_ms
from schemas.limits import MAX_BROKER_BYTES, MAX_CAMERAS
from schemas.transport.access import KafkaAddress
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.clients import STOP_S
from schemas.transport.kafka.producers import Producers

DEADLINE_S: Final = 15.0
"""Time limit of one batch, unless a caller has another."""
_COMPLAIN_EVERY: Final = 10
_NO_PARTITION: Final = -1
"""Stands for the partition if the whole topic is missing."""

log = structlog.get_logger()

Headers = Sequence[tuple[str, bytes]]


class Sendable(Protocol):
    """The parts of a record that Kafka gets."""

    @property
    def key(self) -> bytes:
        """The key that determines the partition."""

    @property
    def value(self) -> bytes | None:
        """The message; None deletes the key from a compacted topic."""

    @property
    def headers(self) -> Headers:
        """Names and values."""


class PlainRecord(NamedTuple):
    """A record and nothing else."""

    key: bytes
    value: bytes | None
    headers: Headers


R = TypeVar("R", bound=Sendable)


class BatchFullError(Exception):
    """A record that does not fit an empty batch."""


@lru_cache(maxsize=MAX_CAMERAS)
def _hash(key: bytes) -> int:
    value: int = murmur2(key)
    return value & 0x7FFFFFFF


def partition_of(key: bytes, partitions: Sequence[int]) -> int:
    """Return the partition of a key, as every client of Kafka chooses it; `partitions` in order."""
    return partitions[_hash(key) % len(partitions)]


class Sender:
    """The sender of batches to Kafka. Its producer starts with the first batch, and again after `close`."""

    def __init__(
        self,
        address: KafkaAddress,
        *,
        name: str = "",
        batch_bytes: int = MAX_BROKER_BYTES,
        deadline_s: float = DEADLINE_S,
        on_health: Callable[[bool, str], None] = lambda _ok, _detail: None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_health` gets whether Kafka accepts records, and the reason if not; `on_failure` counts failed batches.

        A batch takes at most `batch_bytes` and `deadline_s` seconds. `name` is the client id in Kafka's log.
        """
        self._on_health = on_health
        self._on_failure = on_failure
        self._producers = Producers(address, name, batch_bytes, deadline_s, self._report, self._back_off)
        self._refused: dict[tuple[str, int], str] = {}
        """Partitions that did not accept their last batch, and topics that are missing, and why."""
        self._well = False
        self._turns: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        """A lock for each partition: one batch at a time is on its way, so that sequence numbers have no gap."""

    async def connect(self) -> None:
        """Wait until a producer has started, without limit."""
        await self._producers.current()

    async def partitions(self, topic: str) -> list[int]:
        """Return the partitions of a topic in order; wait for the topic without limit."""
        backoff = Backoff()
        try:
            while True:
                try:
                    found = await self._producers.partitions(topic)
                    break
                except KafkaError as error:
                    why = self._refused[topic, _NO_PARTITION] = f"expected topic {topic}: {type(error).__name__}"
                    await self._back_off(backoff, error, why)
        finally:
            if self._refused:
                self._refused.pop((topic, _NO_PARTITION), None)
        self._report()
        return found

    async def send(
        self,
        topic: str,
        records: Sequence[R],
        delivered: Callable[[R], None] = lambda _: None,
        *,
        shrink: Callable[[R], R | None] = lambda _: None,
        refused: Callable[[R, str], None] | None = None,
        once: bool = False,
    ) -> None:
        """Send records to the partitions of their keys, and return when Kafka has acknowledged all.

        See `deliver`; `delivered` is called for each record.
        """
        partitions = await (self._producers.partitions(topic, once) if once else self.partitions(topic))
        groups: defaultdict[int, list[R]] = defaultdict(list)
        for record in records:
            groups[partition_of(record.key, partitions)].append(record)

        async def send_group(partition: int, group: list[R]) -> None:
            def note(done: Sequence[R], _offset: int) -> None:
                for record in done:
                    delivered(record)

            await self.deliver(topic, partition, group, note, shrink=shrink, refused=refused, once=once)

        if len(groups) == 1:
            ((partition, group),) = groups.items()
            await send_group(partition, group)
        else:
            sending = (send_group(partition, group) for partition, group in groups.items())
            for error in await asyncio.gather(*sending, return_exceptions=once):
                if error is not None:
                    raise error

    async def deliver(
        self,
        topic: str,
        partition: int,
        records: Sequence[R],
        delivered: Callable[[Sequence[R], int], None],
        *,
        shrink: Callable[[R], R | None] = lambda _: None,
        refused: Callable[[R, str], None] | None = None,
        once: bool = False,
    ) -> None:
        """Send records of one partition in order; return when Kafka has acknowledged all.

        `delivered` gets the records of each acknowledged batch and its first offset, negative if Kafka does not know
        it. A batch that fails is sent again without limit; with `once` the error is raised: KafkaError, OSError or
        TimeoutError. A batch that Kafka rejects as too large is split. A single record that is too large goes to
        `shrink`, which returns a smaller one or None. If there is none, the record goes to `refused` with the reason;
        without `refused` it is tried again, or with `once` the error is raised.
        """
        backoff = Backoff()
        left: Sequence[R] = records
        most = len(records)
        try:
            while left:
                trying = left if len(left) <= most else left[:most]
                try:
                    sent, offset = await self._send(topic, partition, trying, once)
                except (MessageSizeTooLargeError, RecordListTooLargeError, BatchFullError) as error:
                    self._on_failure()
                    if len(trying) > 1:
                        # The limit is for a batch: its records alone may fit.
                        most = len(trying) // 2
                        continue
                    smaller = shrink(trying[0])
                    if smaller is not None:
                        left = [smaller, *left[1:]]
                        continue
                    if refused is not None:
                        refused(trying[0], f"Kafka refused {len(trying[0].value or b'')} bytes: {error}")
                        left = left[1:]
                        continue
                    if once:
                        raise
                    await self._failed(topic, partition, backoff, error)
                except Exception as error:
                    # Any error of the client library: to give up would lose records.
                    self._on_failure()
                    if once:
                        raise
                    await self._failed(topic, partition, backoff, error)
                else:
                    if self._refused:
                        self._refused.pop((topic, partition), None)
                    if not self._well:
                        # One partition that accepts records must not hide another that does not.
                        self._report()
                    delivered(trying if sent == len(trying) else trying[:sent], offset)
                    left = left[sent:]
                    most *= 2
        finally:
            if self._refused:
                self._refused.pop((topic, partition), None)

    async def close(self, deadline_s: float = STOP_S) -> None:
        """Close all connections within `deadline_s` seconds; undelivered records are dropped."""
        await self._producers.close(max(0.1, deadline_s))

    # One batch

    async def _send(self, topic: str, partition: int, records: Sequence[R], once: bool) -> tuple[int, int]:
        """Send as many of `records` as fit one batch; return their number and the first offset."""
        connection = self._producers.ready or await self._producers.current(once)
        connection.users += 1
        try:
            batch, count = _fill(connection.producer, records)
            try:
                async with self._turns[topic, partition]:
                    return count, await connection.requests.send(batch, TopicPartition(topic, partition))
            except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
                self._producers.replace(connection, error, broken=False)
                raise
            except Exception as error:
                self._producers.replace(connection, error, broken=True)
                raise
        finally:
            connection.users -= 1
            if connection.replaced:
                self._producers.retire(connection)

    async def _failed(self, topic: str, partition: int, backoff: Backoff, error: Exception) -> None:
        why = self._refused[topic, partition] = f"{topic}: {error!r}"
        await self._back_off(backoff, error, why)

    async def _back_off(self, backoff: Backoff, error: Exception, why: str) -> None:
        self._well = False
        self._on_health(False, why)
        if backoff.failures % _COMPLAIN_EVERY == 0:
            log.warning("records_not_sent", error=repr(error)[:300], attempt=backoff.failures)
        await backoff.wait()

    def _report(self) -> None:
        well = not self._refused
        if not (well and self._well):
            self._well = well
            self._on_health(well, next(iter(self._refused.values()), ""))


def _fill(producer: AIOKafkaProducer, records: Sequence[Sendable]) -> tuple[Any, int]:
    """Return a closed batch and the number of records in it, at least one; raises BatchFullError if none fits."""
    now_ms = unix_ms()
    batch = producer.create_batch()
    append = batch.append
    count = 0
    for record in records:
        if append(timestamp=now_ms, key=record.key, value=record.value, headers=record.headers) is None:
            break
        count += 1
    if not count:
        size = len(records[0].value or b"")
        raise BatchFullError(f"record of {size} bytes: expected room in a batch, got none")
    batch.close()
    return batch, count
