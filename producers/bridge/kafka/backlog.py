"""The consumer lag of the processors, and the decision whether the bridge accepts frames."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog
from aiokafka.structs import TopicPartition

from schemas.topics import KafkaTopic
from schemas.transport.access import KafkaAddress
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.admin import Admin
from schemas.transport.kafka.clients import REQUEST_S
from schemas.transport.kafka.reader import Reader

log = structlog.get_logger()

COMPLAIN_AFTER: Final = 3
"""Failures in a row before the progress counts as unknown: a Kafka that has just started has no coordinator yet."""
SKIPPED: Final = 3
"""Readings in a row that are skipped while no confirmation waits for them, or after more readings without progress."""
FIRSTS_EVERY: Final = 8
"""Readings between two of the first offsets, which move only when Kafka deletes records."""
RECENT: Final = 1000
"""Number of records, up to twice as many, over which a mean size is computed."""


class RecordSizes:
    """Mean size in bytes of the records recently sent to each partition."""

    def __init__(self) -> None:
        self._sums: dict[int, tuple[float, float]] = {}

    def add(self, partition: int, records: int, size: int) -> None:
        """Count `records` of `size` bytes together that went to a partition."""
        count, total = self._sums.get(partition, (0.0, 0.0))
        count, total = count + records, total + size
        while count > 2 * RECENT:
            count, total = count / 2, total / 2
        self._sums[partition] = count, total

    def mean(self, partition: int) -> float:
        """Return the mean of a partition, or of all if it has no records; 0 before the first record."""
        count, total = self._sums.get(partition, (0.0, 0.0))
        if not count:
            count = sum(c for c, _ in self._sums.values())
            total = sum(t for _, t in self._sums.values())
        return total / count if count else 0.0


class Backlog:
    """The poller of the processors' lag in frames, which it converts to bytes.

    Kafka deletes its oldest records even if they are unprocessed, and confirmed frames would be lost. Therefore the
    bridge rejects frames while any partition has more than `limit_bytes` unprocessed, until it has less than half of
    that. The estimate needs no stored state: offsets come from Kafka, sizes from the records that this bridge sent.
    """

    def __init__(
        self,
        bootstrap: KafkaAddress,
        client: str,
        group: str,
        limit_bytes: int,
        interval_s: float,
        hold: Callable[[bool], None],
        advance: Callable[[Mapping[int, int] | None], None],
        waits: Callable[[], bool] = lambda: True,
        undone_mean: Callable[[int], float] = lambda _: 0.0,
    ) -> None:
        """`hold` is called with whether frames are held back, at each change. `advance` is called with the next offset
        of the group per partition, or None when that is unknown or the topic was made again. While nothing `waits` for
        an advance, or the group makes no progress, up to `SKIPPED` readings are skipped. `undone_mean` returns the mean
        size of a partition's unprocessed records, or 0 if it is unknown: then that of the recent ones stands for it."""
        self.sizes = RecordSizes()
        self.bytes = 0
        """The lag in bytes of the partition with the largest lag."""
        self.holding = False
        self._bootstrap = bootstrap
        self._client = client
        self._group = group
        self._limit_bytes = limit_bytes
        self._interval_s = interval_s
        self._hold = hold
        self._advance = advance
        self._waits = waits
        self._undone_mean = undone_mean
        self._firsts: dict[TopicPartition, int] = {}
        self._readings = 0
        self._done: Mapping[int, int] = {}
        self._unmoved = 0
        """Readings since the last progress of the group."""

    async def run(self, partitions: list[int]) -> None:
        """Poll until cancelled. While Kafka does not respond, the last result holds."""
        backoff = Backoff()
        name = f"{self._client}-backlog"
        while True:
            try:
                async with Reader(self._bootstrap, name=name) as reader, Admin(self._bootstrap, name=name) as admin:
                    self._readings = 0
                    while True:
                        async with asyncio.timeout(REQUEST_S):
                            places = await self._places(reader, admin, partitions)
                        backoff.reset()
                        done = {partition: done for partition, (done, _) in places.items()}
                        if any(offset < self._done.get(partition, 0) for partition, offset in done.items()):
                            self._advance(None)  # the topic was made again: earlier offsets mean nothing
                        self._unmoved = self._unmoved + 1 if done == self._done else 0
                        self._done = done
                        self._advance(done)
                        self.observe({partition: end - done for partition, (done, end) in places.items()})
                        for _ in range(SKIPPED + 1):
                            await asyncio.sleep(self._interval_s)
                            if self.holding or (self._unmoved <= SKIPPED and self._waits()):
                                break
            except Exception as error:
                # Any error of the client library: frames must not stop because the lag is unknown.
                if backoff.failures + 1 >= COMPLAIN_AFTER:
                    self._advance(None)  # each time: what was sent since the last one is unknown too
                if backoff.failures + 1 == COMPLAIN_AFTER:
                    log.warning("lag_not_read", group=self._group, cause=repr(error)[:300])
            await backoff.wait()

    def observe(self, undone: Mapping[int, int]) -> None:
        """Update the number of unprocessed records of each partition."""
        self.bytes = round(max(count * (self._undone_mean(p) or self.sizes.mean(p)) for p, count in undone.items()))
        wanted = self.bytes > self._limit_bytes // 2 if self.holding else self.bytes > self._limit_bytes
        if wanted != self.holding:
            self.holding = wanted
            log.info("backpressure_started" if wanted else "backpressure_ended", backlog_bytes=self.bytes)
            self._hold(wanted)

    async def _places(self, reader: Reader, admin: Admin, partitions: list[int]) -> dict[int, tuple[int, int]]:
        """Return, per partition, the group's next offset and the offset of the next record."""
        places = [TopicPartition(KafkaTopic.FRAMES.value, partition) for partition in partitions]
        committed = await admin.committed(self._group)
        if self._readings % FIRSTS_EVERY == 0:
            self._firsts = await reader.beginnings(places)
        self._readings += 1
        ends = await reader.ends(places)
        found = {}
        for place in places:
            done = max(self._firsts[place], committed.get(place, 0))
            found[place.partition] = (done, max(done, ends[place]))
        return found
