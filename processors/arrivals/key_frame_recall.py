"""Records of the frames topic that are read back by their offsets: single ones, and spans."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Final

import structlog
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import ConsumerRecord, TopicPartition

from schemas.errors import typed_text
from schemas.transport.access import KafkaAddress
from schemas.transport.kafka.reader import Reader

log = structlog.get_logger()

Place = tuple[int, int]
"""Partition and offset."""
Found = Callable[[Place, ConsumerRecord | None], None]
Passed = Callable[[int, ConsumerRecord | None], None]

_FETCH_BYTES: Final = 64 * 1024
"""Maximum bytes of a fetch. Kafka returns at least one whole batch of records, even a larger one."""
_SPAN_BYTES: Final = 2 * 2**20
"""Bytes of one fetch of a span."""
_PART_BYTES: Final = 512 * 2**20
"""Bytes of a span after which the reader goes on with its newest part."""
_READ_S: Final = 5.0
_SPAN_S: Final = 10.0
"""Longest wait for the next records of a span: its partition waits too."""
_TRIES: Final = 5
_RETRY_S: Final = 0.5


class KeyFrameRecall:
    """A task that fetches records. If Kafka does not answer, it retries each place a few times."""

    def __init__(self, bootstrap: KafkaAddress, topic: str, found: Found, passed: Passed) -> None:
        """`found` receives each single record, or None if Kafka no longer has the record or does not return it.

        `passed` receives each record of a span with its partition, and None behind the last one. A span has bounds of
        time and bytes: the end may be early, and of a long span only the beginning and the newest part are read.
        """
        self._bootstrap = bootstrap
        self._topic = topic
        self._found = found
        self._passed = passed
        self.wanted: dict[Place, int] = {}
        self.spans: dict[int, range] = {}
        """Wanted spans by their partitions."""
        self._wake = asyncio.Event()

    def request(self, places: Iterable[Place]) -> None:
        """Fetch these records. A place that is already queued is fetched once."""
        for place in places:
            self.wanted.setdefault(place, 0)
        self._wake.set()

    def request_span(self, partition: int, span: range) -> None:
        """Fetch the records with the offsets of a span."""
        self.spans[partition] = span
        self._wake.set()

    async def run(self) -> None:
        """Fetch until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self.spans:
                await self._pass(*next(iter(self.spans.items())))
            while self.wanted:
                try:
                    await self._fetch()
                except (KafkaError, OSError, TimeoutError) as error:
                    log.warning("key_frame_recall_failed", error=typed_text(error))
                    await asyncio.sleep(_RETRY_S)

    async def _pass(self, partition: int, span: range) -> None:
        """Read one span, in a few tries: without a part of it, key frames are requested from the cameras.

        The span may be wanted once more meanwhile, after the partition was revoked and assigned again. It is then read
        from its beginning: what was passed before the revocation is gone.

        After the bytes of `_PART_BYTES`, half as many of the newest records follow: most open groups are among these.
        """
        following, count, size, tries = span.start, 0, 0, 0
        while following < span.stop and tries < _TRIES:
            try:
                async with aclosing(self._records(partition, range(following, span.stop))) as records:
                    async for record in records:
                        # By identity: the later span may have the same ends.
                        if self.spans.get(partition) is not span:
                            return
                        self._passed(partition, record)
                        following, count, size = record.offset + 1, count + 1, size + len(record.value or b"")
                        if size > _PART_BYTES:
                            break
                    else:
                        break
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("group_recall_failed", partition=partition, error=typed_text(error))
                tries += 1
                if tries < _TRIES:
                    await asyncio.sleep(_RETRY_S)
            else:
                newest = max(following, span.stop - (count + 1) // 2)
                if newest > following:
                    log.warning("group_recall_shortened", partition=partition, skipped=newest - following)
                following, count, size = newest, 0, 0
        if self.spans.get(partition) is span:
            del self.spans[partition]
            self._passed(partition, None)

    async def _records(self, partition: int, span: range) -> AsyncGenerator[ConsumerRecord]:
        """Yield the records of a span. Raises TimeoutError when none comes for `_SPAN_S` seconds."""
        place, loop = TopicPartition(self._topic, partition), asyncio.get_running_loop()
        async with (
            asyncio.timeout(_SPAN_S) as limit,
            Reader(self._bootstrap, partition_bytes=_SPAN_BYTES, fetch_wait_s=0.05, request_s=_READ_S) as reader,
        ):
            reader.assign([place])
            reader.seek({place: span.start})
            async for records in reader.fetch_until({place: span.stop}):
                for record in records.get(place, ()):
                    if record.offset < span.stop:
                        yield record
                if records:
                    limit.reschedule(loop.time() + _SPAN_S)

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
