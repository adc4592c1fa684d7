"""Verdicts given lately: a frame that comes again gets the same one, and costs the device nothing.

Resends after a failure, and replays by whoever listens on MQTT, would otherwise take the device's time from new frames.
The recorder removes the duplicate by identity, and counts it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from processors.results.records import Outgoing
from schemas.identity import Identity

CAPACITY: Final = 16_384
"""Verdicts remembered, of a few hundred bytes each: the pictures that went with them are not kept."""


class Repeats:
    """The records of the verdicts that Kafka holds, the least recently used forgotten first."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._records: OrderedDict[Identity, Outgoing] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def remember(self, identity: Identity, record: Outgoing) -> None:
        """Kafka holds this verdict."""
        self._records[identity] = record
        self._records.move_to_end(identity)
        if len(self._records) > self._capacity:
            self._records.popitem(last=False)

    def find(self, identity: Identity) -> Outgoing | None:
        """The verdict on a frame, when it is still known."""
        found = self._records.get(identity)
        if found is not None:
            self._records.move_to_end(identity)
        return found
