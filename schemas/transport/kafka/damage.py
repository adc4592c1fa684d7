"""Reading past damaged batches of Kafka's log, on which a plain client would fail without end.

If a batch does not fit its checksum, aiokafka raises CorruptRecordException and drops the records that the same call
had fetched from other partitions. The reader goes back to its last position and reads one record a call for a while.
It does the same if a header's name is not UTF-8: Kafka accepts such a record from any client, aiokafka cannot read it.

If the length in a batch's head is damaged, Kafka itself finds nothing up to the next entry of its index (4 KiB). It
returns no records and no error: the partition stalls before its end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from aiokafka.errors import CorruptRecordException, IllegalStateError

from schemas.transport.kafka.internals import batch_end, current_assignment

DAMAGE: Final = (CorruptRecordException, UnicodeDecodeError)
"""aiokafka's errors of a record that it never returns: a wrong checksum, or a header's name that is not UTF-8."""
CAREFUL_S: Final = 5.0
"""Seconds for which one record a call is read after damage."""
_WAIT_MS: Final = 20
STALL_CHECK_S = 5.0
"""Seconds between two checks for stalled partitions."""
STALL_S = 20.0
"""Seconds without a record, before the partition's end, after which later offsets are tried."""
_TRY_MS: Final = 100
_TRIES: Final = 40
"""Attempts of `_TRY_MS` each. Without a response, damage cannot be inferred."""
_FURTHEST: Final = 4096
"""Most records that a stalled partition may skip."""


class DamageSkipper:
    """Recovery from damaged batches: reads of one record a call, and jumps over stalls."""

    def __init__(self) -> None:
        self._until_s = 0.0
        self._check_at_s = 0.0
        self._still: dict[Any, tuple[int, float]] = {}

    @property
    def is_careful(self) -> bool:
        """Whether the reader met damage less than `CAREFUL_S` seconds ago, and reads one record a call."""
        return time.monotonic() < self._until_s

    def note_damage(self) -> None:
        """Record damage: the reader is careful from now on."""
        self._until_s = time.monotonic() + CAREFUL_S

    async def getmany(self, consumer: Any, partitions: Sequence[Any], most: int) -> tuple[dict[Any, list[Any]], int]:
        """Return up to `most` records, partition by partition, and the number of damaged records that were skipped.

        Offsets are skipped one by one, because only a batch's own head states its end. The frame in a damaged record is
        lost; later frames are not. If the checksum is right, as with a header's name that is not UTF-8, the rest of the
        batch is skipped at once: aiokafka reads a batch from its beginning.

        A rebalance during a call drops the records of the calls before: the group delivers them again.
        """
        found: dict[Any, list[Any]] = {}
        passed = 0
        assignment = current_assignment(consumer)
        for partition in partitions:
            while sum(map(len, found.values())) < most:
                try:
                    # One record a call: records fetched before the damage are not dropped with the exception.
                    records = (await consumer.getmany(partition, timeout_ms=_WAIT_MS, max_records=1)).get(partition)
                except DAMAGE as error:
                    assignment = _drop_stale(found, consumer, assignment)
                    at = await consumer.position(partition)
                    if current_assignment(consumer) is not assignment:
                        continue
                    following = max(at + 1, batch_end(error) if isinstance(error, UnicodeDecodeError) else 0)
                    consumer.seek(partition, following)
                    passed += following - at
                    self.note_damage()
                    continue
                assignment = _drop_stale(found, consumer, assignment)
                if not records:
                    break
                found.setdefault(partition, []).extend(records)
        return found, passed

    async def skip_stalls(self, consumer: Any, partitions: Sequence[Any]) -> int:
        """Skip damage on which Kafka itself stalls, and return the number of skipped records.

        Call it before each read of `partitions`. Nothing is skipped unless Kafka returns records at later offsets, and
        none at the position itself. A partition does not stall while nobody reads it: the caller leaves it out, or does
        not call for three times `STALL_CHECK_S`.
        """
        now_s = time.monotonic()
        if now_s < self._check_at_s or not partitions:
            return 0
        before = self._still if now_s < self._check_at_s + 2 * STALL_CHECK_S else {}
        self._check_at_s = now_s + STALL_CHECK_S
        passed = 0
        try:
            async with asyncio.timeout(STALL_CHECK_S):
                assignment = current_assignment(consumer)
                ends = await consumer.end_offsets(partitions)
                positions = {partition: await consumer.position(partition) for partition in partitions}
            self._still = {partition: before.get(partition, (-1, now_s)) for partition in partitions}
            for partition, position in positions.items():
                at, since_s = self._still[partition]
                if position != at or position >= ends[partition]:
                    self._still[partition] = position, now_s
                elif now_s - since_s >= STALL_S:
                    self._still[partition] = position, now_s
                    _require(consumer, assignment)
                    passed += await self._skip_stall(consumer, partition, position, ends[partition])
        except Exception:  # an unavailable broker raises any error; it is no sign of damage
            return passed
        return passed

    async def _skip_stall(self, consumer: Any, partition: Any, position: int, end: int) -> int:
        """Seek the first record after `position` that Kafka returns, and return the number of skipped records.

        Raises IllegalStateError if a rebalance replaces the assignment: the new position stays.
        """
        goal, assignment = position, current_assignment(consumer)
        try:
            step = 1
            found = None
            while found is None and step <= min(_FURTHEST, end - 1 - position):
                found = await self._first(consumer, partition, position + step)
                step *= 2
            if found is None or await self._first(consumer, partition, position) is not None:
                return 0
            # The steps doubled: an earlier record may be readable. No other partition is read meanwhile, so the
            # distance is halved. This finds the end of one gap: records between two that are close are passed over.
            empty, readable = position + step // 4, position + step // 2
            while readable - empty > 1:
                middle = (empty + readable) // 2
                nearer = await self._first(consumer, partition, middle)
                if nearer is None:
                    empty = middle
                else:
                    readable, found = middle, nearer
            goal = found
            return goal - position
        finally:
            if current_assignment(consumer) is assignment:
                consumer.seek(partition, goal)

    async def _first(self, consumer: Any, partition: Any, offset: int) -> int | None:
        """Return the offset of the first record that Kafka returns from `offset` on; None if it answers with none.

        Raises TimeoutError when Kafka does not answer: a node is away, hangs or is busy.
        """
        assignment = current_assignment(consumer)
        consumer.seek(partition, offset)
        asked = consumer.last_poll_timestamp(partition)
        answered = False
        for _ in range(_TRIES):
            try:
                records = (await consumer.getmany(partition, timeout_ms=_TRY_MS, max_records=1)).get(partition)
            except DAMAGE:
                _require(consumer, assignment)
                return offset  # it is damaged, but it is there: reading passes it
            if records and current_assignment(consumer) is not assignment:
                consumer.seek(partition, records[0].offset)  # it is the first one of the new assignment
            _require(consumer, assignment)
            if records:
                return int(records[0].offset)
            if answered:
                return None
            # The next call returns the records of this response.
            answered = consumer.last_poll_timestamp(partition) != asked
        raise TimeoutError(f"{partition}: expected a response of Kafka at offset {offset}, got none")


def _drop_stale(found: dict[Any, list[Any]], consumer: Any, assignment: object) -> object:
    """Return the current assignment, and drop the found records unless they are of it."""
    current = current_assignment(consumer)
    if current is not assignment:
        found.clear()
    return current


def _require(consumer: Any, assignment: object) -> None:
    """Raise IllegalStateError if a rebalance has replaced the assignment."""
    if current_assignment(consumer) is not assignment:
        raise IllegalStateError("expected the same assignment, got a new one after a rebalance")
