"""The one reader of Kafka: topics, single partitions, or a share of a consumer group's.

It skips damaged records, leaves nodes that hang, and closes within a deadline. A role that reads without end opens it
again after an error, with delays by `Backoff`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import CorruptRecordException, IllegalStateError
from aiokafka.structs import ConsumerRecord, TopicPartition

from schemas.limits import MAX_BROKER_BYTES
from schemas.transport.access import KafkaAddress, kafka_options
from schemas.transport.kafka.clients import REQUEST_S, STOP_S, close_clients, start_client
from schemas.transport.kafka.damage import DAMAGE, DamageSkipper
from schemas.transport.kafka.internals import (
    commit_to_existing_topics,
    committed_notes,
    force_close,
    is_hidden,
    leave_group_on_stop,
    missing_replicas,
    raise_group_error,
)

Records: TypeAlias = dict[TopicPartition, list[ConsumerRecord]]

JOIN_S: Final = 15.0
"""Time limit of a request by a member of a group: a rebalance takes as long as its slowest member."""
HEARTBEAT_S: Final = 0.25
"""Seconds between two heartbeats: the answer to one announces a rebalance, and all members wait for the last one."""
_GROUP_METADATA_S: Final = 5.0
"""Age at which a group's leader refreshes the topics' metadata; it rebalances when they change."""
_METADATA_S: Final = 30.0
_AT_ONCE: Final = 2_000
"""Most records of one careful fetch without a limit of its caller."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Group:
    """A membership of a consumer group."""

    name: str
    session_s: float
    """A member without a heartbeat for this long loses its partitions."""
    listener: ConsumerRebalanceListener
    instance: str | None = None
    """A fixed name: a member that crashes and returns under it within `session_s` keeps its partitions."""
    by_range: bool = False
    """Assign the same partition number of each topic to one member."""

    def options(self) -> dict[str, Any]:
        """Return the options of aiokafka's consumer."""
        session_ms = round(1000 * self.session_s)
        strategy = {"partition_assignment_strategy": (RangePartitionAssignor,)} if self.by_range else {}
        return {
            "group_id": self.name,
            "group_instance_id": self.instance,
            "session_timeout_ms": session_ms,
            "rebalance_timeout_ms": session_ms,
            "heartbeat_interval_ms": round(1000 * HEARTBEAT_S),
            "metadata_max_age_ms": round(1000 * _GROUP_METADATA_S),
            "request_timeout_ms": round(1000 * JOIN_S),
            **strategy,
        }


def _alone(request_s: float) -> dict[str, Any]:
    return {
        "group_id": None,
        "metadata_max_age_ms": round(1000 * _METADATA_S),
        "request_timeout_ms": round(1000 * request_s),
    }


class Reader:
    """A consumer that can be opened and closed again and again; by `async with`, once.

    Without a group it reads all partitions of its topics, or the ones that `assign` names. Its methods raise what
    aiokafka raises, OSError and TimeoutError if Kafka does not answer.
    """

    def __init__(
        self,
        address: KafkaAddress,
        *topics: str,
        group: Group | None = None,
        name: str = "",
        begin: Literal["earliest", "latest", "none"] = "earliest",
        partition_bytes: int = MAX_BROKER_BYTES,
        fetch_wait_s: float = 0.5,
        least_bytes: int = 1,
        request_s: float = REQUEST_S,
        on_skipped: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`begin` is the position without a committed offset, and after one that Kafka no longer holds.

        `none` raises OffsetOutOfRangeError instead. A fetch takes at most about `partition_bytes` of each partition, a
        larger record alone, and waits `fetch_wait_s` seconds in Kafka for `least_bytes` of records. A request, outside
        a group, takes `request_s` seconds at most. `on_skipped` gets the number of damaged records that were skipped.
        `name` is the client id in Kafka's log.
        """
        self._topics = topics
        self._group = group
        self._request_s = request_s
        self._on_skipped = on_skipped
        self._options = {
            **kafka_options(address, name),
            "enable_auto_commit": False,
            "auto_offset_reset": begin,
            "max_partition_fetch_bytes": partition_bytes,
            "fetch_max_bytes": 2 * MAX_BROKER_BYTES,
            "fetch_min_bytes": least_bytes,
            "fetch_max_wait_ms": round(1000 * fetch_wait_s),
            **(group.options() if group is not None else _alone(request_s)),
        }
        self._damage = DamageSkipper()
        self._consumer: AIOKafkaConsumer | None = None
        self._following: dict[TopicPartition, int] = {}
        """The next offset of each partition whose position is known."""
        self.is_open = False

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect, and join the group; after an error nothing is open."""
        consumer = AIOKafkaConsumer(**self._options)
        if self._topics:
            listener = self._group.listener if self._group is not None else None
            consumer.subscribe(sorted(self._topics), listener=listener)
        self._following.clear()
        self._consumer = consumer  # the group's listener may use it during the start
        try:
            async with asyncio.timeout(None if self._group is not None else 2 * self._request_s):
                await start_client(consumer)
        except BaseException:
            await self.close()
            raise
        if self._group is not None:
            commit_to_existing_topics(consumer)
        self.is_open = True

    async def close(self, deadline_s: float = STOP_S, *, keeps_place: bool = True) -> None:
        """Close all connections within `deadline_s` seconds, and leave the group.

        A member with a fixed name that `keeps_place` does not leave: its partitions wait for its return.
        """
        consumer, self._consumer = self._consumer, None
        self.is_open = False
        self._following.clear()
        if consumer is not None and not keeps_place:
            leave_group_on_stop(consumer)
        if consumer is not None and not await close_clients(consumer.stop, deadline_s=deadline_s):
            # Kafka does not answer: the group notices the end of the session.
            await close_clients(*force_close(consumer), deadline_s=deadline_s)

    # Records

    async def fetch(self, *places: TopicPartition, wait_s: float, most: int | None = None) -> Records:
        """Return the next records of `places`, or of all partitions; empty if none came within `wait_s` seconds.

        At most `most` records. After damage the fetch is careful: it skips damaged records one by one. A group member
        that has not sought its positions raises CorruptRecordException instead, and is careful after the next `open`.
        """
        consumer = self._opened()
        if self._group is None:
            async with asyncio.timeout(self._request_s):
                for place in places or consumer.assignment():
                    if place not in self._following:
                        self._following[place] = await consumer.position(place)
        # Before the records are taken, not after: a rebalance during these requests would make them stale.
        await self._skip_stalls(consumer, places or tuple(self._following.keys() & consumer.assignment()))
        if self._damage.is_careful:
            return await self._fetch_one_by_one(consumer, places or sorted(consumer.assignment()), wait_s, most)
        try:
            found: Records = await consumer.getmany(*places, timeout_ms=max(1, round(1000 * wait_s)), max_records=most)
        except DAMAGE:
            self._damage.note_damage()
            await self._rewind(consumer, places or tuple(consumer.assignment()))
            return {}
        for place, records in found.items():
            if place in self._following:
                self._following[place] = records[-1].offset + 1
        return found

    async def fetch_until(self, ends: Mapping[TopicPartition, int]) -> AsyncIterator[Records]:
        """Yield the records of the partitions of `ends` until each has reached its end offset."""
        while places := [place for place, end in ends.items() if await self.position(place) < end]:
            yield await self.fetch(*places, wait_s=0.5)

    async def _fetch_one_by_one(
        self, consumer: AIOKafkaConsumer, places: Sequence[TopicPartition], wait_s: float, most: int | None
    ) -> Records:
        if not places:  # none is assigned yet
            await asyncio.sleep(wait_s)
            return {}
        found, skipped = await self._damage.getmany(consumer, places, most or _AT_ONCE)
        await self._skipped(consumer, skipped)
        for place in places:
            if place in self._following:
                self._following[place] = await consumer.position(place)
        return found

    async def _rewind(self, consumer: AIOKafkaConsumer, places: Iterable[TopicPartition]) -> None:
        """Seek the positions before a fetch that met damage: its records of other partitions are lost with it."""
        places = list(places)
        if any(place not in self._following for place in places):
            raise CorruptRecordException("Kafka: expected undamaged records, got a damaged batch")
        for place in places:
            consumer.seek(place, self._following[place])

    async def _skip_stalls(self, consumer: AIOKafkaConsumer, places: Sequence[TopicPartition]) -> None:
        await self._skipped(consumer, await self._damage.skip_stalls(consumer, places))

    async def _skipped(self, consumer: AIOKafkaConsumer, records: int) -> None:
        if not records:
            return
        log.error("damaged_records_skipped", records=records)
        self._on_skipped(records)
        for place in self._following.keys() & consumer.assignment():
            self._following[place] = await consumer.position(place)

    # Positions

    def assign(self, places: Iterable[TopicPartition]) -> None:
        """Read these partitions and no others."""
        self._following.clear()
        self._opened().assign(list(places))

    def assignment(self) -> list[TopicPartition]:
        """Return the partitions that are read now, in order."""
        return sorted(self._opened().assignment())

    def seek(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Continue at these offsets. Raises IllegalStateError for a partition that is not assigned."""
        consumer = self._opened()
        for place, offset in offsets.items():
            consumer.seek(place, offset)
            self._following[place] = offset

    def return_records(self, records: Records) -> None:
        """Make the next fetch return these records again; nothing happens to those of a revoked partition."""
        for place, found in records.items():
            with suppress(IllegalStateError):
                self._opened().seek(place, found[0].offset)
                if place in self._following:
                    self._following[place] = found[0].offset

    async def seek_to_beginning(self, *places: TopicPartition) -> None:
        """Continue at the first record that Kafka holds of each of `places`."""
        for place in places:
            self._following.pop(place, None)
        await self._opened().seek_to_beginning(*places)

    async def position(self, place: TopicPartition) -> int:
        """Return the offset of the next record."""
        return int(await self._opened().position(place))

    def high_watermark(self, place: TopicPartition) -> int | None:
        """Return the end of a partition by its last fetch; None before the first."""
        end: int | None = self._opened().highwater(place)
        return end

    def is_at_end(self) -> bool:
        """Return whether all records that Kafka held at the last fetch are read. For a reader without a group."""
        consumer = self._opened()
        ends = {place: consumer.highwater(place) for place in consumer.assignment()}
        return bool(ends) and all(
            end is not None and self._following.get(place, -1) >= end for place, end in ends.items()
        )

    def fetched_s(self, place: TopicPartition) -> float:
        """Return the monotonic time of a partition's last fetch; −∞ before the first."""
        at_ms: int | None = self._opened().last_poll_timestamp(place)
        return -math.inf if at_ms is None else time.monotonic() - (time.time() - at_ms / 1000)

    async def beginnings(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the offset of the first record that Kafka holds of each partition."""
        return dict(await self._opened().beginning_offsets(places)) if places else {}

    async def ends(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the offset of the record that each partition gets next."""
        return dict(await self._opened().end_offsets(places)) if places else {}

    async def at_time(self, place: TopicPartition, at_ms: int) -> int | None:
        """Return the offset of the first record at or after a Unix time in milliseconds; None if there is none."""
        found = (await self._opened().offsets_for_times({place: at_ms})).get(place)
        return None if found is None else int(found.offset)

    # Groups and topics

    def raise_group_error(self) -> None:
        """Raise the error with which Kafka refuses this member of a group, if there is one; `fetch` does so too."""
        raise_group_error(self._opened())

    async def commit(self, offsets: Mapping[TopicPartition, int | tuple[int, str]]) -> None:
        """Commit offsets to the group, each alone or with a note. aiokafka sets no time limit.

        Raises UnknownTopicOrPartitionError if the topic is missing.
        """
        await self._opened().commit(dict(offsets))

    async def committed_notes(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, str]:
        """Return the notes of the last commits. aiokafka sets no time limit."""
        return await committed_notes(self._opened(), places)

    async def topics(self) -> set[str]:
        """Return the names of all topics that Kafka lists for this client."""
        return set(await self._opened().topics())

    def partitions_of(self, topic: str) -> set[int]:
        """Return the partitions of a topic by the last metadata."""
        return set(self._opened().partitions_for_topic(topic) or ())

    def is_missing(self, topic: str) -> bool:
        """Return whether Kafka has no such topic, by the last metadata. A hidden topic is not missing."""
        return not self.partitions_of(topic) and not is_hidden(self._opened(), topic)

    def missing_replicas(self) -> int:
        """Return the replicas of its topics' partitions that are not in sync, by the last metadata; 0 when closed."""
        return missing_replicas(self._consumer, self._topics) if self._consumer is not None else 0

    def _opened(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise RuntimeError("Reader: expected it to be open, got a closed one. Call open() first.")
        return self._consumer
