"""The Kafka producer of a bridge: started when Kafka answers, replaced when a batch of it failed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.limits import MAX_BROKER_BYTES
from schemas.runtime.health import Health
from schemas.topics import KafkaTopic
from schemas.transport.access import KafkaAddress, kafka_options
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.clients import end, start

log = structlog.get_logger()

START_S: Final = 15.0
REQUEST_MS: Final = 10_000
CLOSE_S: Final = 2.0


class Producers:
    """One idempotent producer at a time.

    After a batch has failed, an idempotent producer's sequence numbers have a gap and nothing more gets through on
    that partition (OUT_OF_ORDER_SEQUENCE), and a batch that is only late never expires: so a failure of either kind
    ends the producer. What it may still have delivered comes twice, and is recognised by identity.
    """

    def __init__(self, bootstrap: KafkaAddress, name: str, health: Health) -> None:
        self.given_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the current producer is given up."""
        self._bootstrap = bootstrap
        self._name = name
        self._health = health
        self._producer: AIOKafkaProducer | None = None
        self._working = asyncio.Event()

    async def run(self) -> None:
        """Keep a producer until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            producer = await self._start()
            self.given_up = loop.create_future()
            self._producer = producer
            self._working.set()
            self._health.set("kafka", True)
            try:
                await self.given_up
            finally:
                self._producer = None
                self._working.clear()
                await end(producer, CLOSE_S)

    async def current(self) -> AIOKafkaProducer:
        """The producer, once there is one."""
        while self._producer is None:
            await self._working.wait()
        return self._producer

    def replace(self, producer: AIOKafkaProducer, cause: BaseException) -> None:
        """Give `producer` up, unless that has already happened."""
        if producer is self._producer and not self.given_up.done():
            log.warning("kafka producer given up", cause=repr(cause)[:300])
            self._health.set("kafka", False, f"{type(cause).__name__}")
            self._working.clear()
            self._producer = None
            self.given_up.set_result(None)

    async def partitions(self, topics: Iterable[KafkaTopic]) -> Mapping[KafkaTopic, list[int]]:
        """The partitions of each topic, as soon as Kafka knows all topics."""
        found: dict[KafkaTopic, list[int]] = {}
        for topic in topics:
            backoff = Backoff()
            while topic not in found:
                producer = await self.current()
                try:
                    found[topic] = sorted(await producer.partitions_for(topic.value))
                except KafkaError as error:
                    self._health.set("kafka", False, f"expected topic {topic.value}: {type(error).__name__}")
                    log.warning("waiting for a Kafka topic", topic=topic.value, cause=repr(error)[:300])
                    await backoff.wait()
        self._health.set("kafka", True)
        return found

    async def _start(self) -> AIOKafkaProducer:
        backoff = Backoff()
        while True:
            producer = AIOKafkaProducer(
                **kafka_options(self._bootstrap),
                client_id=self._name,
                acks="all",
                enable_idempotence=True,
                max_batch_size=MAX_BROKER_BYTES,
                max_request_size=MAX_BROKER_BYTES,
                request_timeout_ms=REQUEST_MS,
            )
            try:
                async with asyncio.timeout(START_S):
                    await start(producer)
            except (KafkaError, OSError, TimeoutError) as error:
                await end(producer, CLOSE_S)
                self._health.set("kafka", False, f"no answer from {self._bootstrap}: {type(error).__name__}")
                await backoff.wait()
            except BaseException:
                await end(producer, CLOSE_S)
                raise
            else:
                return producer
