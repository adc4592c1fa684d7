"""The acknowledgement window: messages that MQTT delivered and that are not settled, in arrival order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TypeAlias

Ticket: TypeAlias = tuple[int, int]
"""The connection's generation and a place in the order of arrival."""


class AckWindow:
    """The unacknowledged messages of one connection. A packet id is released once it and all earlier ones are settled.

    MQTT 5 (4.6) requires PUBACKs in the order of the PUBLISH packets, over all Kafka partitions. A packet id is valid
    on its own connection only: `open` discards the earlier ones, and their tickets then settle nothing.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._packet_ids: deque[int] = deque()
        self._settled: set[int] = set()
        self._first = 0

    def __len__(self) -> int:
        """Messages received on this connection and not released."""
        return len(self._packet_ids)

    def open(self) -> None:
        """Begin a new connection."""
        self.generation += 1
        self._packet_ids.clear()
        self._settled.clear()

    def receive(self, packet_id: int) -> Ticket:
        """Add a message and return its ticket."""
        self._packet_ids.append(packet_id)
        return self.generation, self._first + len(self._packet_ids) - 1

    def settle(self, tickets: Iterable[Ticket]) -> list[int]:
        """Mark messages as settled; return the packet ids that may be acknowledged now, in order."""
        generation, settled = self.generation, self._settled
        settled.update(place for origin, place in tickets if origin == generation)
        released: list[int] = []
        while self._first in settled:
            settled.remove(self._first)
            self._first += 1
            released.append(self._packet_ids.popleft())
        return released
