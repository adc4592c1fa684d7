"""Reading Kafka from offsets that the database keeps: every partition, or this recorder's share of a group's.

The group only says whose a partition is; where to go on in it the database says, in one transaction with the effect of
what came before. What is committed to the group is for those who look at its lag.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, suppress

from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import TopicPartition

from consumers.reading.batch import Partition, Record, Span
from consumers.reading.membership import Membership
from consumers.settings import RecorderSettings
from schemas.runtime import trace
from schemas.transport.kafka.clients import REQUEST_S
from schemas.transport.kafka.reader import Reader

TakeUp = Callable[[Collection[str], Mapping[Partition, Span]], Awaitable[Mapping[Partition, int]]]
"""Takes the partitions up that a reader of these topics has, given where each log begins and ends: where to go on."""


class Rewound(Exception):  # noqa: N818  # what Kafka says, not a failure
    """A partition does not go on where it was left: it was made anew, or it has more partitions now."""


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
        """At most about `partition_bytes` of each partition are fetched at once, a larger record alone.

        Without a `membership` of a group all partitions are read. `on_damaged` is told how many records in damaged
        batches were passed over.
        """
        self.topics = frozenset(topics)
        self._next: dict[TopicPartition, int] = {}
        self._membership = membership or Membership()
        self._reader = Reader(
            settings.kafka,
            *self.topics,
            group=self._membership.join(),
            partition_bytes=partition_bytes,
            on_skipped=on_damaged,
        )

    async def open(self) -> None:
        """Connect, and join the group; `take_up` comes next.

        Raises what aiokafka raises when Kafka does not answer or has not all topics yet.
        """
        self._membership.begin()
        await self._reader.open()

    async def take_up(self, take_up: TakeUp) -> None:
        """Go on where the database says, in the partitions that are ours now; raises `Rewound` when that breaks off."""
        reader = self._reader
        while True:
            await self._membership.settled()
            self._next = {}
            partitions = reader.assignment()
            begins = await reader.beginnings(partitions)
            ends = await reader.ends(partitions)
            spans = {(tp.topic, tp.partition): (begins[tp], ends[tp]) for tp in partitions}
            stored = await take_up(self.topics, spans)
            if not self._membership.is_settled:
                continue
            self._next = {tp: max(stored[tp.topic, tp.partition], begins[tp]) for tp in partitions}
            with suppress(IllegalStateError):  # it is not ours any more, as the group is about to say
                reader.seek(self._next)
            return

    def writing(self) -> AbstractAsyncContextManager[None]:
        """While what was gathered is written, no partition is given up; `Reassigned` when one was before."""
        return self._membership.writing()

    async def tell(self, offsets: Mapping[Partition, int]) -> None:
        """Let the group know up to where records are written, for those who look at its lag."""
        if not self.is_open or not self._membership.group or not self._membership.is_settled:
            return
        mine = {tp: offsets[tp.topic, tp.partition] for tp in self._next if (tp.topic, tp.partition) in offsets}
        if not mine:
            return
        with suppress(KafkaError, TimeoutError, IllegalStateError):
            # Without a limit, aiokafka looks for the group's coordinator for ever.
            async with asyncio.timeout(REQUEST_S):
                await self._reader.commit(mine)

    async def gather(self, linger_s: float, limit: int) -> list[Record]:
        """The records that come within `linger_s` of the first one, at most about `limit`.

        Empty when none came for half a second. Raises `Rewound` when reading must begin again with `open`, and
        `Reassigned` when it goes on with `take_up`.
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
                raise Rewound("the topics have other partitions than before")
            if trace.on():
                trace.stamp("gathered", *(named(record) for some in found.values() for record in some))
            for partition, some in found.items():
                if some[0].offset < self._next[partition]:
                    raise Rewound(f"{partition}: expected offset {self._next[partition]}, got {some[0].offset}")
                self._next[partition] = some[-1].offset + 1
                records += some
            if not found and deadline is None:
                break
            if deadline is None:
                deadline = time.monotonic() + linger_s
        return records

    async def lag(self) -> int:
        """Records that Kafka holds beyond those gathered; asks Kafka, and raises when it does not answer."""
        positions = dict(self._next)
        if not positions:
            return 0
        ends = await asyncio.wait_for(self._reader.ends(list(positions)), REQUEST_S)
        return sum(max(0, ends[partition] - position) for partition, position in positions.items())

    def copies_missing(self) -> int:
        """Copies of all partitions of its topics that are away or behind, as Kafka said last; 0 before it is open."""
        return self._reader.missing_replicas()

    @property
    def held(self) -> int:
        """Partitions that are read now."""
        return len(self._next)

    @property
    def is_open(self) -> bool:
        """Whether `open` has succeeded and `close` has not been called since."""
        return self._reader.is_open

    async def close(self) -> None:
        """Drop the connection, and leave the group."""
        self._next = {}
        await self._reader.close()


def named(record: Record) -> str:
    """What a record's event is called: of a verdict, the identity of its frame."""
    return next((value.decode(errors="replace") for name, value in record.headers if name == "ce_id"), "")
