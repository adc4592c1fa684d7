"""Single records of the frames topic, read back by their offsets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import structlog
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import ConsumerRecord, TopicPartition

from schemas.transport.access import KafkaAddress
from schemas.transport.kafka.reader import Reader

log = structlog.get_logger()

Place = tuple[int, int]
"""Partition and offset."""
Found = Callable[[Place, ConsumerRecord | None], None]

_FETCH_BYTES: Final = 64 * 1024
"""Kafka returns at least one whole batch of records, of any size."""
_READ_S: Final = 5.0
_TRIES: Final = 5
_RETRY_S: Final = 0.5


class KeyFrameRecall:
    """A task that fetches records. If Kafka does not answer, it retries each place a few times."""

    def __init__(self, bootstrap: KafkaAddress, topic: str, found: Found) -> None:
        """`found` gets each record; None if Kafka no longer has it or does not return it."""
        self._bootstrap = bootstrap
        self._topic = topic
        self._found = found
        self.wanted: dict[Place, int] = {}
        self._wake = asyncio.Event()

    def want(self, places: Iterable[Place]) -> None:
        """Fetch these records. A place that is wanted already is fetched once."""
        for place in places:
            self.wanted.setdefault(place, 0)
        self._wake.set()

    async def run(self) -> None:
        """Fetch until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self.wanted:
                try:
                    await self._fetch()
                except (KafkaError, OSError, TimeoutError) as error:
                    log.warning("key_frame_recall_failed", error=f"{type(error).__name__}: {error}")
                    await asyncio.sleep(_RETRY_S)

    async def _fetch(self) -> None:
        async with Reader(
            self._bootstrap, begin="none", partition_bytes=_FETCH_BYTES, fetch_wait_s=0.05, request_s=_READ_S
        ) as reader:
            while self.wanted:
                place = min(self.wanted)
                self.wanted[place] += 1
                try:
                    record = await self._read(reader, place)
                except (KafkaError, OSError, TimeoutError):
                    if self.wanted[place] < _TRIES:
                        raise
                    record = None
                del self.wanted[place]
                self._found(place, record)

    async def _read(self, reader: Reader, place: Place) -> ConsumerRecord | None:
        partition = TopicPartition(self._topic, place[0])
        async with asyncio.timeout(_READ_S):
            reader.assign([partition])
            reader.seek({partition: place[1]})
            try:
                while not (found := (await reader.fetch(partition, wait_s=_READ_S, most=1)).get(partition)):
                    pass
            except OffsetOutOfRangeError:
                return None
            record = found[0]
        return record if record.offset == place[1] else None
