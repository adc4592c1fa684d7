"""One idempotent producer at a time: started when it is needed, replaced after a failure.

After a failed batch, an idempotent producer's sequence numbers have a gap, and Kafka rejects everything behind it on
that partition. A batch that is only late never expires. So each failure of a batch ends its producer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.limits import MAX_BROKER_BYTES
from schemas.transport.access import KafkaAddress, kafka_options
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.clients import abort_producer, start_client, stop_producer
from schemas.transport.kafka.produce_requests import ProduceRequests

START_S: Final = 15.0
"""Time limit of a producer's start."""
PRODUCE_REQUEST_S: Final = 10.0
CLOSE_S: Final = 2.0
"""Time limit of closing the connections of a replaced producer."""

log = structlog.get_logger()


class Connection:
    """A started producer, its requests, and the number of batches and other calls that use it."""

    def __init__(self, producer: AIOKafkaProducer, deadline_s: float) -> None:
        self.producer = producer
        self.requests = ProduceRequests(producer, deadline_s)
        self.users = 0
        self.replaced = False
        self.broken = False
        """True when batches in flight must not wait for this producer any longer."""

    def abort(self) -> None:
        """End the waits for this producer."""
        self.broken = True
        self.requests.abort()


class Producers:
    """The producer in use, and replaced ones until their last batch has ended."""

    def __init__(
        self,
        address: KafkaAddress,
        name: str,
        batch_bytes: int,
        deadline_s: float,
        on_start: Callable[[], None],
        back_off: Callable[[Backoff, Exception, str], Awaitable[None]],
    ) -> None:
        """A batch takes at most `batch_bytes` and `deadline_s` seconds.

        Call `on_start` after each start. After a failed one, `back_off` gets the error and its reason, and waits.
        """
        self._address = address
        self._deadline_s = deadline_s
        self._on_start = on_start
        self._back_off = back_off
        self._options = {
            **kafka_options(address, name),
            "acks": "all",
            "enable_idempotence": True,
            "max_batch_size": batch_bytes,
            "max_request_size": MAX_BROKER_BYTES,
            "request_timeout_ms": round(1000 * PRODUCE_REQUEST_S),
        }
        self.ready: Connection | None = None
        """The producer in use; None before a start. A caller counts itself among its users."""
        self._connecting = asyncio.Lock()
        self._open: set[Connection] = set()
        self._closing: set[asyncio.Task[None]] = set()

    async def current(self, once: bool = False) -> Connection:
        """Return the producer in use. If there is none, start one: retried without limit, or tried `once`.

        Raises KafkaError, OSError or TimeoutError if the one attempt fails.
        """
        if self.ready is not None:
            return self.ready
        async with self._connecting:
            backoff = Backoff()
            while self.ready is None:
                try:
                    self.ready = await self._started()
                except (KafkaError, OSError) as error:
                    if once:
                        raise
                    await self._back_off(backoff, error, f"no answer from {self._address}: {type(error).__name__}")
                else:
                    self._on_start()
            return self.ready

    async def partitions(self, topic: str, once: bool = False) -> list[int]:
        """Return the partitions of a topic in order. Raises KafkaError for an unknown topic."""
        connection = await self.current(once)
        connection.users += 1  # a closed client never ends a request for metadata
        try:
            return sorted(await connection.producer.partitions_for(topic))
        finally:
            connection.users -= 1
            self.retire(connection)

    def replace(self, connection: Connection, error: BaseException, *, broken: bool) -> None:
        """Stop using a producer for new batches. If it is `broken`, batches in flight stop waiting for it."""
        if not connection.replaced:
            connection.replaced = True
            log.warning("producer_replaced", error=repr(error)[:300])
        if self.ready is connection:
            self.ready = None
        if broken and not connection.broken:
            connection.abort()

    def retire(self, connection: Connection) -> None:
        """Close a replaced producer that nothing uses any longer."""
        if connection.replaced and not connection.users and connection in self._open:
            task = asyncio.create_task(self._close(connection, CLOSE_S), name="producer-retire")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self, deadline_s: float) -> None:
        """Close all producers within `deadline_s` seconds."""
        self.ready = None
        await asyncio.gather(*(self._close(each, deadline_s) for each in list(self._open)), *self._closing)

    async def _started(self) -> Connection:
        connection = Connection(AIOKafkaProducer(**self._options), self._deadline_s)
        try:
            async with asyncio.timeout(START_S):
                await start_client(connection.producer)
        except BaseException as error:
            await asyncio.shield(abort_producer(connection.producer, CLOSE_S))
            if isinstance(error, (KafkaError, OSError)) or not isinstance(error, Exception):
                raise
            # aiokafka checks a node's answers by assertions.
            raise KafkaError(f"{self._address}: expected Kafka's protocol, got {error!r}") from error
        self._open.add(connection)
        return connection

    async def _close(self, connection: Connection, deadline_s: float) -> None:
        if connection not in self._open:
            return
        self._open.remove(connection)
        await connection.requests.close(deadline_s)
        if connection.broken:
            await abort_producer(connection.producer, deadline_s)
            return
        try:
            await stop_producer(connection.producer, deadline_s)
        except Exception:  # an unavailable broker may cause any error
            await abort_producer(connection.producer, CLOSE_S)
