"""Reading past damaged batches of Kafka's log, of which the client would only say so for ever.

aiokafka raises CorruptRecordException where a batch does not fit its checksum, and drops what it had taken from other
partitions for the same call. So whoever gets that goes back to where it was, and reads carefully for a while. The
class is not imported here: the contract loads no client.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

CAREFUL_S: Final = 5.0
"""How long reading stays careful after damage."""
_WAIT_MS: Final = 20


class DamagePasser:
    """Whether to read carefully now, and how."""

    def __init__(self, damage: type[Exception]) -> None:
        """`damage` is the client's CorruptRecordException."""
        self._damage = damage
        self._until_s = 0.0

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
