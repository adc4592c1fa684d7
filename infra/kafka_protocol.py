"""What Kafka holds and its readers have not yet taken, read by its protocol: what the audit asks a cluster for.

Only records that wait are fetched: of those that a reader has taken, its offset says that they were there. So the cost
grows with what waits, not with what Kafka holds. A member of no group reads, and nothing is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from infra.kafka_sets import KafkaSets, Waiting
from schemas.errors import BrokerError
from schemas.keys import KeyRing
from schemas.topics import PROCESSORS_GROUP, KafkaTopic
from schemas.transport.access import KafkaAddress
from schemas.transport.kafka.admin import Admin
from schemas.transport.kafka.reader import Reader

SILENT_S: Final = 60.0
"""Kafka gives something within this time, or says that there is nothing: damage is looked for in it."""
_TOPICS: Final = (KafkaTopic.FRAMES, KafkaTopic.VERDICTS, KafkaTopic.DEAD_LETTERS)

Offsets = Mapping[tuple[str, int], int]
"""By topic and partition."""


async def read_by_protocol(bootstrap: KafkaAddress, recorder: Offsets, keys: KeyRing) -> KafkaSets:
    """Read the Kafka at `bootstrap`; `recorder` holds the offsets at which the recorder goes on.

    Up to the end that each log has at the start. Raises BrokerError when Kafka does not answer.
    """
    sets = KafkaSets()
    try:
        partitions, taken = await _cluster(bootstrap)
        known = {tp.topic for tp in partitions}
        sets.unread += [f"Kafka: expected the topic {topic}, there is none" for topic in _TOPICS if topic not in known]
        # What Kafka deletes meanwhile is passed over.
        async with Reader(bootstrap, begin="earliest") as reader:
            await _read(reader, partitions, {**recorder, **taken}, sets, keys)
    except (KafkaError, OSError, TimeoutError) as error:
        raise BrokerError(f"expected Kafka at {bootstrap} to answer: {error or type(error).__name__}") from None
    return sets


async def _cluster(bootstrap: KafkaAddress) -> tuple[list[TopicPartition], dict[tuple[str, int], int]]:
    """The partitions of our topics, and the next frame that the processors will take of each of theirs."""
    async with Admin(bootstrap) as admin:
        partitions = [each.place for each in await admin.partitions() if each.place.topic in _TOPICS]
        committed = await admin.committed(PROCESSORS_GROUP)
    taken = {(tp.topic, tp.partition): at for tp, at in committed.items() if tp.topic == KafkaTopic.FRAMES}
    return sorted(partitions), taken


async def _read(
    reader: Reader, partitions: Sequence[TopicPartition], taken: Offsets, sets: KafkaSets, keys: KeyRing
) -> None:
    if not partitions:
        return
    begins = await reader.beginnings(partitions)
    ends = await reader.ends(partitions)
    sets.frames = sum(ends[tp] - begins[tp] for tp in partitions if tp.topic == KafkaTopic.FRAMES)
    # An offset beyond the end is of an earlier log: all of this one waits.
    following = {
        tp: at if begins[tp] <= at <= ends[tp] else begins[tp]
        for tp in partitions
        for at in [taken.get((tp.topic, tp.partition), begins[tp])]
    }
    if all(following[tp] >= ends[tp] for tp in partitions):
        return
    waiting = _Waiting(reader, following, ends, sets)
    while places := waiting.places():
        for tp, records in (await waiting.some(places)).items():
            topic = KafkaTopic(tp.topic)
            for record in records:
                if record.offset < ends[tp]:
                    sets.take(topic, record, keys)


class _Waiting:
    """Reads from given offsets to given ends, past damage, which it names."""

    def __init__(
        self,
        reader: Reader,
        following: dict[TopicPartition, int],
        ends: dict[TopicPartition, int],
        sets: KafkaSets,
    ) -> None:
        self._reader = reader
        self._next = {tp: at for tp, at in following.items() if at < ends[tp]}
        self._ends = ends
        self._sets = sets
        reader.assign(self._next)
        reader.seek(self._next)

    def places(self) -> list[TopicPartition]:
        """The partitions that have not been read to their end."""
        return [tp for tp, at in self._next.items() if at < self._ends[tp]]

    async def some(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, list[Waiting]]:
        """The next records of `partitions`."""
        try:
            async with asyncio.timeout(SILENT_S):
                return await self._some(partitions)
        except TimeoutError:
            raise TimeoutError(f"it gave nothing of {partitions[0].topic} for {SILENT_S:g} s") from None

    async def _some(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, list[Waiting]]:
        while True:
            found = await self._reader.fetch(*partitions, wait_s=0.5)
            moved = False
            for tp in partitions:
                at = await self._reader.position(tp)
                moved |= at > self._next[tp]
                missing = self._missing(tp, found.get(tp, []), at)
                if missing:
                    self._sets.unread.append(f"Kafka {tp.topic}-{tp.partition}: {missing}")
                self._next[tp] = at
            if moved or found:
                return found

    def _missing(self, tp: TopicPartition, records: Sequence[Waiting], position: int) -> str:
        """What was passed over of the offsets up to `position`; empty when nothing was."""
        expected, passed, first = self._next[tp], 0, -1
        for offset in (*(record.offset for record in records), position):
            if offset > expected:
                first = expected if first < 0 else first
                passed += offset - expected
            expected = offset + 1
        return f"{passed} records from offset {first} on are damaged or were deleted" if passed else ""
