"""Unread records of a Kafka cluster, read by its protocol, for the audit of a deployment.

Only uncommitted records are fetched. Committed offsets account for the rest. The cost therefore grows with the lag, not
with the size of Kafka's logs. The reader belongs to no group, and commits nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from infra.audit.kafka_sets import AuditedRecord, KafkaSets
from schemas.errors import BrokerError, error_text
from schemas.keys.keys import KeyRing
from schemas.topics import PROCESSORS_GROUP, KafkaTopic
from schemas.transport.access import KafkaAddress
from schemas.transport.kafka.admin import Admin
from schemas.transport.kafka.reader import Reader

SILENT_S: Final = 60.0
"""Kafka returns records or an empty answer within this time; otherwise damage is suspected."""
_TOPICS: Final = (KafkaTopic.FRAMES, KafkaTopic.VERDICTS, KafkaTopic.DEAD_LETTERS)

Offsets = Mapping[tuple[str, int], int]
"""Offsets by topic and partition."""


async def read_by_protocol(bootstrap: KafkaAddress, recorder: Offsets, keys: KeyRing) -> KafkaSets:
    """Read the Kafka at `bootstrap`; `recorder` holds the recorder's next offsets.

    Reads up to the end that each log has at the start. Raises BrokerError when Kafka does not answer.
    """
    sets = KafkaSets()
    try:
        partitions, taken = await _cluster(bootstrap)
        known = {tp.topic for tp in partitions}
        sets.unread += [f"Kafka: expected the topic {topic}, there is none" for topic in _TOPICS if topic not in known]
        # Records that Kafka deletes meanwhile are skipped.
        async with Reader(bootstrap, begin="earliest") as reader:
            await _read(reader, partitions, {**recorder, **taken}, sets, keys)
    except (KafkaError, OSError, TimeoutError) as error:
        raise BrokerError(
            f"Kafka at {bootstrap}: expected a response, got {error_text(error)}. Start Kafka, or correct its address."
        ) from None
    return sets


async def _cluster(bootstrap: KafkaAddress) -> tuple[list[TopicPartition], dict[tuple[str, int], int]]:
    """Return the partitions of our topics, and the processors' next offset in each partition of frames."""
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
    # An offset beyond the end belongs to an earlier log: this whole log is unread.
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
                    sets.add(topic, record, keys)


class _Waiting:
    """A reader from given offsets to given ends that skips damage and reports it."""

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
        """Return the partitions that have not been read to their end."""
        return [tp for tp, at in self._next.items() if at < self._ends[tp]]

    async def some(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, list[AuditedRecord]]:
        """Return the next records of `partitions`."""
        try:
            async with asyncio.timeout(SILENT_S):
                return await self._some(partitions)
        except TimeoutError:
            raise TimeoutError(f"it gave nothing of {partitions[0].topic} for {SILENT_S:g} s") from None

    async def _some(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, list[AuditedRecord]]:
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

    def _missing(self, tp: TopicPartition, records: Sequence[AuditedRecord], position: int) -> str:
        """Describe the offsets skipped up to `position`; empty when none were."""
        expected, passed, first = self._next[tp], 0, -1
        for offset in (*(record.offset for record in records), position):
            if offset > expected:
                first = expected if first < 0 else first
                passed += offset - expected
            expected = offset + 1
        return f"{passed} records from offset {first} on are damaged or were deleted" if passed else ""
