"""Results to Kafka: one batch and one future for each micro-batch and partition, sent until Kafka has it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from aiokafka.partitioner import murmur2

from processors.results.records import Outgoing
from schemas.limits import CAMERAS_AT_HAND, MAX_BROKER_BYTES
from schemas.transport.access import KafkaAddress, kafka_options
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.clients import end, start, stop

CLOSE_S: Final = 1.0
_BATCH_BYTES: Final = 2**20

log = structlog.get_logger()


@lru_cache(maxsize=CAMERAS_AT_HAND)
def _hash(key: bytes) -> int:
    value: int = murmur2(key)
    return value & 0x7FFFFFFF


class _Connection:
    """A started producer and how many deliveries use it: it is stopped when it was replaced and nobody does."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.producer = producer
        self.users = 0
        self.replaced = False


class Emitter:
    """Sends records for as long as it takes. An idempotent producer that has failed for good is replaced by a new one.

    A batch whose fate is unknown when its producer fails goes out again: the readers remove duplicates by identity.
    """

    def __init__(self, bootstrap: KafkaAddress, on_health: Callable[[bool, str], None]) -> None:
        """`on_health` hears whether Kafka takes records, and why not."""
        self._bootstrap = bootstrap
        self._on_health = on_health
        self._connection: _Connection | None = None
        self._open: set[_Connection] = set()
        self._refused: dict[tuple[str, int], str] = {}
        """Partitions that did not take the last batch, and why."""
        self._turns: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        """Whose batch of a partition is next. Of many that wait inside aiokafka 0.14 each is charged for all the time
        again whenever another has gone, so that they fail as too late when Kafka has hung for a second or two."""
        self._connecting = asyncio.Lock()
        self._stopping: set[asyncio.Task[None]] = set()

    async def connect(self) -> AIOKafkaProducer:
        """Wait until there is a started producer; for ever, if need be."""
        return (await self._connected()).producer

    async def _connected(self) -> _Connection:
        async with self._connecting:
            backoff = Backoff()
            while self._connection is None:
                producer = AIOKafkaProducer(
                    **kafka_options(self._bootstrap),
                    enable_idempotence=True,
                    acks="all",
                    max_batch_size=_BATCH_BYTES,
                    max_request_size=MAX_BROKER_BYTES,
                    request_timeout_ms=15_000,
                )
                connection = _Connection(producer)
                self._open.add(connection)
                try:
                    await start(producer)
                    self._connection = connection
                except (KafkaError, OSError) as error:
                    await self._close(connection, 1.0)
                    await self._back_off(backoff, error)
                except BaseException:
                    await asyncio.shield(self._close(connection, 1.0))
                    raise
            return self._connection

    async def _back_off(self, backoff: Backoff, error: Exception) -> None:
        complaint = f"{type(error).__name__}: {error}"
        self._on_health(False, complaint)
        if backoff.failures % 10 == 0:
            log.warning("kafka does not take records", error=complaint, attempt=backoff.failures)
        await backoff.wait()

    async def send(self, topic: str, records: Sequence[Outgoing]) -> None:
        """Return when Kafka has acknowledged all `records`; the `done` of each is called as soon as it is so."""
        partitions = await self._partitions(topic)
        groups: defaultdict[int, list[Outgoing]] = defaultdict(list)
        for record in records:
            groups[partitions[_hash(record.key) % len(partitions)]].append(record)
        if len(groups) == 1:
            ((partition, group),) = groups.items()
            await self._deliver(topic, partition, group)
        else:
            await asyncio.gather(*(self._deliver(topic, partition, group) for partition, group in groups.items()))

    async def _partitions(self, topic: str) -> list[int]:
        backoff = Backoff()
        while True:
            connection = await self._connected()
            try:
                return sorted(await connection.producer.partitions_for(topic))
            except KafkaError as error:
                await self._back_off(backoff, error)

    async def _deliver(self, topic: str, partition: int, records: list[Outgoing]) -> None:
        try:
            await self._deliver_all(topic, partition, records)
        finally:
            self._refused.pop((topic, partition), None)

    async def _deliver_all(self, topic: str, partition: int, records: list[Outgoing]) -> None:
        backoff = Backoff()
        left = records
        most = len(records)
        while left:
            connection = await self._connected()
            connection.users += 1
            try:
                builder = connection.producer.create_batch()
                fitting = 0
                for record in left[:most]:
                    if (
                        builder.append(timestamp=None, key=record.key, value=record.value, headers=record.headers)
                        is None
                    ):
                        break
                    fitting += 1
                async with self._turns[topic, partition]:
                    future = await connection.producer.send_batch(builder, topic, partition=partition)
                await future
            except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
                self._refused[topic, partition] = f"{topic}: {error!r}"
                self._replace(connection)
                for record in left[:fitting]:
                    record.value, record.smaller = record.smaller or record.value, None
                most = max(1, fitting // 2)
                await self._back_off(backoff, error)
            except (KafkaError, OSError) as error:
                self._refused[topic, partition] = f"{topic}: {error!r}"
                self._replace(connection)
                await self._back_off(backoff, error)
            else:
                self._refused.pop((topic, partition), None)
                # What one partition takes must not hide that another one takes nothing.
                self._on_health(not self._refused, next(iter(self._refused.values()), ""))
                for record in left[:fitting]:
                    record.done()
                left = left[fitting:]
            finally:
                connection.users -= 1
                self._retire(connection)

    def _replace(self, connection: _Connection) -> None:
        """A producer that has failed one batch is out of step with Kafka's sequence numbers."""
        connection.replaced = True
        if self._connection is connection:
            self._connection = None

    def _retire(self, connection: _Connection) -> None:
        if connection.replaced and not connection.users and connection in self._open:
            task = asyncio.create_task(self._close(connection, 5.0), name="producer-retire")
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    async def _close(self, connection: _Connection, deadline_s: float) -> None:
        if connection not in self._open:
            return
        self._open.remove(connection)
        try:
            await stop(connection.producer, deadline_s)
        except KafkaError:
            await end(connection.producer, CLOSE_S)

    async def close(self, deadline_s: float) -> None:
        """Let go of Kafka; what it has not acknowledged by then is given up."""
        self._connection = None
        await asyncio.gather(*(self._close(c, max(0.1, deadline_s)) for c in list(self._open)), *self._stopping)
