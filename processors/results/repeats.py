"""A cache of recent verdicts: a repeated frame gets the same verdict, and costs no device time.

Resends after a failure, and replays by an eavesdropper on MQTT, would otherwise take device time from new frames. The
recorder removes the duplicate by identity, and counts it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from processors.results.records import OutgoingRecord
from schemas.identity import Identity

CAPACITY: Final = 16_384
"""Cached verdicts, of a few hundred bytes each: their pictures are not kept."""


class Repeats:
    """The records of the verdicts that Kafka holds; the least recently used is evicted first."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._records: OrderedDict[Identity, OutgoingRecord] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def remember(self, identity: Identity, record: OutgoingRecord) -> None:
        """Cache a verdict that Kafka holds."""
        self._records[identity] = record
        self._records.move_to_end(identity)
        if len(self._records) > self._capacity:
            self._records.popitem(last=False)

    def find(self, identity: Identity) -> OutgoingRecord | None:
        """Return the verdict on a frame; None if it is not cached."""
        found = self._records.get(identity)
        if found is not None:
            self._records.move_to_end(identity)
        return found
