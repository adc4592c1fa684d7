"""A reader of Kafka from offsets in the database: of every partition, or of this recorder's share in a group.

The group only assigns partitions. The database holds the next offset of each, written in one transaction with the
effect of the earlier records. Offsets are also committed to Kafka, so that the lag can be measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final

from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import TopicPartition

from consumers.records.batch import Partition, Record, Span
from consumers.records.membership import Membership
from consumers.settings import RecorderSettings
from schemas.runtime import trace
from schemas.transport.kafka.clients import REQUEST_S
from schemas.transport.kafka.reader import Reader
from schemas.transport.kafka.record_sizes import RecordSizes

ASSUMED_BYTES: Final = 2048
"""Size of a record before the first one is read: a verdict with a certificate has about as many."""

_REFUSED_S: Final = 0.5
"""Seconds between two checks, during a rebalance, whether the group refuses this member."""

Claim = Callable[[Collection[str], Mapping[Partition, Span]], Awaitable[Mapping[Partition, int]]]
"""Claims the reader's partitions of these topics, given each log's begin and end. Returns the next offsets."""


class LogRewoundError(Exception):
    """A partition does not continue: its topic was created again, or has more partitions now."""


class Log:
    """The records of some topics from given offsets on, each once and in order per partition."""

    def __init__(
        self,
        settings: RecorderSettings,
        topics: Collection[str],
        partition_bytes: int,
        membership: Membership | None = None,
        on_damaged: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Set the source. About `partition_bytes` of each partition are fetched at once, or one larger record.

        Without a `membership` of a group, all partitions are read. `on_damaged` receives the number of records skipped
        in damaged batches.
        """
        self.topics = frozenset(topics)
        self._next: dict[TopicPartition, int] = {}
        self._sizes = {topic: RecordSizes() for topic in self.topics}
        self._membership = membership or Membership()
        self._reader = Reader(
            settings.kafka,
            *self.topics,
            group=self._membership.join(),
            partition_bytes=partition_bytes,
            on_skipped=on_damaged,
        )

    async def open(self) -> None:
        """Connect and join the group. Call `resume` next.

        Raises aiokafka's errors if Kafka does not respond or lacks a topic.
        """
        self._membership.begin()
        await self._reader.open()

    async def resume(self, claim: Claim) -> None:
        """Continue at the database's offsets in the assigned partitions.

        Raises `LogRewoundError` if a log does not continue, and aiokafka's error if the group refuses this member.
        """
        reader = self._reader
        while True:
            while not await self._membership.settled(_REFUSED_S):
                reader.raise_group_error()
            self._next = {}
            partitions = reader.assignment()
            begins = await reader.beginnings(partitions)
            ends = await reader.ends(partitions)
            spans = {(tp.topic, tp.partition): (begins[tp], ends[tp]) for tp in partitions}
            stored = await claim(self.topics, spans)
            if not self._membership.is_settled:
                continue
            self._next = {tp: max(stored[tp.topic, tp.partition], begins[tp]) for tp in partitions}
            with suppress(IllegalStateError):  # revoked meanwhile, as the group is about to report
                reader.seek(self._next)
            return

    def writing(self) -> AbstractAsyncContextManager[None]:
        """Keep all partitions while records are written. Raises `Reassigned` if one was revoked before."""
        return self._membership.writing()

    def committable(self, offsets: Mapping[Partition, int]) -> dict[TopicPartition, tuple[int, str]]:
        """Return those of `offsets` in this reader's partitions, each with the mean bytes of a record as a note.

        The result is empty during a rebalance.
        """
        if not self.is_open or not self._membership.is_settled:
            return {}
        return {
            tp: (offsets[tp.topic, tp.partition], str(round(self._sizes[tp.topic].mean(tp.partition)) or ASSUMED_BYTES))
            for tp in self._next
            if (tp.topic, tp.partition) in offsets
        }

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit offsets to the group, for lag monitoring only."""
        if not self._membership.group:
            return
        mine = self.committable(offsets)
        if not mine:
            return
        with suppress(KafkaError, TimeoutError, IllegalStateError):
            # Without a limit, aiokafka searches for the group's coordinator for ever.
            async with asyncio.timeout(REQUEST_S):
                await self._reader.commit(mine)

    async def gather(self, linger_s: float, limit: int) -> list[Record]:
        """Return the records that arrive within `linger_s` of the first one, at most about `limit`.

        The list is empty if none arrives for half a second. Raises `LogRewoundError` if reading must restart with
        `open`. Raises `Reassigned` if it continues with `resume`.
        """
        records: list[Record] = []
        deadline: float | None = None
        while len(records) < limit:
            wait_s = 0.5 if deadline is None else deadline - time.monotonic()
            if wait_s <= 0:
                break
            self._membership.check()
            found = await self._reader.fetch(wait_s=wait_s, most=limit)
            self._membership.check()
            if set(self._reader.assignment()) != self._next.keys():
                raise LogRewoundError("topics: expected the same partitions as before, got others")
            stamp_gathered(record for some in found.values() for record in some)
            for partition, some in found.items():
                if some[0].offset < self._next[partition]:
                    raise LogRewoundError(f"{partition}: expected offset {self._next[partition]}, got {some[0].offset}")
                self._next[partition] = some[-1].offset + 1
                self._sizes[partition.topic].add(partition.partition, len(some), size_of(some))
                records += some
            if not found and deadline is None:
                break
            if deadline is None:
                deadline = time.monotonic() + linger_s
        return records

    async def lag(self) -> int:
        """Return the number of records in Kafka beyond those gathered. Raises an error if Kafka does not respond."""
        positions = dict(self._next)
        if not positions:
            return 0
        ends = await asyncio.wait_for(self._reader.ends(list(positions)), REQUEST_S)
        return sum(max(0, ends[partition] - position) for partition, position in positions.items())

    def replicas_missing(self) -> int:
        """Missing or lagging replicas of its topics' partitions by Kafka's last metadata; 0 before `open`."""
        return self._reader.missing_replicas()

    def partitions_of(self, topic: str) -> set[int]:
        """Return all partitions of one of its topics, by Kafka's last metadata. Call it while the log is open."""
        return self._reader.partitions_of(topic)

    @property
    def held(self) -> int:
        """Number of partitions that are read now."""
        return len(self._next)

    @property
    def is_open(self) -> bool:
        """Whether `open` has succeeded and `close` has not been called since."""
        return self._reader.is_open

    async def close(self) -> None:
        """Disconnect and leave the group."""
        self._next = {}
        await self._reader.close()


def size_of(records: Sequence[Record]) -> int:
    """Return the bytes of one partition's records, about: keys and headers count as large as the first record's."""
    first = records[0]
    headers = sum(len(name) + len(value or b"") for name, value in first.headers)
    return sum(len(record.value or b"") for record in records) + len(records) * (len(first.key or b"") + headers)


def stamp_gathered(records: Iterable[Record]) -> None:
    """Stamp records as gathered, and follow the verdicts among them whose frames are traced."""
    for record in records:
        name, header = record.headers[-1] if record.headers else ("", b"")
        if name == trace.TRACEPARENT:
            trace.follow("recorder", named(record), header or b"")
        if trace.on():
            trace.stamp("gathered", named(record))


def named(record: Record) -> str:
    """Return the name of a record's event: for a verdict, the identity of its frame."""
    return next(((value or b"").decode(errors="replace") for name, value in record.headers if name == "ce_id"), "")
