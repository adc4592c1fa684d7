"""Reading past damaged batches of Kafka's log, of which the client would only say so for ever.

aiokafka raises CorruptRecordException where a batch does not fit its checksum, and drops what it had taken from other
partitions for the same call. So whoever gets that goes back to where it was, and reads carefully for a while. The
class is not imported here: the contract loads no client.

Where the length in the head of a batch is damaged, Kafka itself does not find what lies behind it, up to the next entry
of its index (4 KiB), and gives nothing, without an error: a partition that stands still before its end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

CAREFUL_S: Final = 5.0
"""How long reading stays careful after damage."""
_WAIT_MS: Final = 20
LOOK_S = 5.0
"""How often partitions are looked at that may stand still."""
STALL_S = 20.0
"""A partition that has given nothing for so long, before its end, is tried further on."""
_TRY_MS: Final = 1000
_TRIES: Final = 4
"""So many times that long for an answer: without one, nothing is known of damage."""
_FURTHEST: Final = 4096
"""So many records further on at most."""


class DamagePasser:
    """Whether to read carefully now, and how."""

    def __init__(self, damage: type[Exception]) -> None:
        """`damage` is the client's CorruptRecordException."""
        self._damage = damage
        self._until_s = 0.0
        self._look_at_s = 0.0
        self._still: dict[Any, tuple[int, float]] = {}

    @property
    def careful(self) -> bool:
        """Whether damage was met a short while ago."""
        return time.monotonic() < self._until_s

    def met(self) -> None:
        """Damage was met: be careful from now on."""
        self._until_s = time.monotonic() + CAREFUL_S

    async def getmany(self, consumer: Any, partitions: Sequence[Any], most: int) -> tuple[dict[Any, list[Any]], int]:
        """What `consumer.getmany` would give, partition by partition, and how many damaged records were passed over.

        One offset after the other is passed over: where a damaged batch ends, only its own head says. A frame in it is
        gone, those behind it are not.
        """
        found: dict[Any, list[Any]] = {}
        passed = 0
        for partition in partitions:
            while sum(map(len, found.values())) < most:
                try:
                    # One record a call: what came with it before damage is not dropped with the exception.
                    records = (await consumer.getmany(partition, timeout_ms=_WAIT_MS, max_records=1)).get(partition)
                except self._damage:
                    consumer.seek(partition, await consumer.position(partition) + 1)
                    passed += 1
                    self.met()
                    continue
                if not records:
                    break
                found.setdefault(partition, []).extend(records)
        return found, passed

    async def pass_stalls(self, consumer: Any, partitions: Sequence[Any]) -> int:
        """Go past damage over which Kafka itself stands still; how many records of `partitions` were passed over.

        To be called again and again by who reads them. Nothing is passed over unless Kafka gives what lies behind, and
        answers that it has nothing here.
        """
        now_s = time.monotonic()
        if now_s < self._look_at_s or not partitions:
            return 0
        self._look_at_s = now_s + LOOK_S
        passed = 0
        try:
            async with asyncio.timeout(LOOK_S):
                ends = await consumer.end_offsets(partitions)
                positions = {partition: await consumer.position(partition) for partition in partitions}
            for partition, position in positions.items():
                at, since_s = self._still.get(partition, (-1, now_s))
                if position != at or position >= ends[partition]:
                    self._still[partition] = position, now_s
                elif now_s - since_s >= STALL_S:
                    self._still[partition] = position, now_s
                    passed += await self._pass_stall(consumer, partition, position, ends[partition])
        except Exception:  # whatever a broker may raise while it is away: that is no damage
            return passed
        return passed

    async def _pass_stall(self, consumer: Any, partition: Any, position: int, end: int) -> int:
        """Go to the first record behind `position` that Kafka gives, if it gives none there; how many lie between."""
        goal = position
        try:
            step = 1
            found = None
            while found is None and step <= min(_FURTHEST, end - 1 - position):
                found = await self._first(consumer, partition, position + step)
                step *= 2
            if found is None or await self._first(consumer, partition, position) is not None:
                return 0
            # The steps doubled: what is readable may begin earlier.
            for earlier in range(position + step // 4 + 1, found):
                nearer = await self._first(consumer, partition, earlier)
                if nearer is not None:
                    found = nearer
                    break
            goal = found
            return goal - position
        finally:
            consumer.seek(partition, goal)

    async def _first(self, consumer: Any, partition: Any, offset: int) -> int | None:
        """The offset of the first record that Kafka gives from `offset` on; None when it answers that there is none.

        Raises TimeoutError when it does not answer, as a node that is away, hangs or has much to do.
        """
        consumer.seek(partition, offset)
        asked = consumer.last_poll_timestamp(partition)
        answered = False
        for _ in range(_TRIES):
            try:
                records = (await consumer.getmany(partition, timeout_ms=_TRY_MS, max_records=1)).get(partition)
            except self._damage:
                return offset  # it is damaged, but it is there: reading passes it
            if records:
                return int(records[0].offset)
            if answered:
                return None
            # What came with this answer is given by the next call.
            answered = consumer.last_poll_timestamp(partition) != asked
        raise TimeoutError(f"expected an answer of Kafka at offset {offset} of {partition}")
