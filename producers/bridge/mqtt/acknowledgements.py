"""The acknowledgement window: what MQTT delivered and Kafka has not yet, in arrival order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TypeAlias

Ticket: TypeAlias = tuple[int, int]
"""The connection's generation and a place in the order of arrival."""


class AckWindow:
    """Gives every message a ticket, and releases packet ids in arrival order once they and all earlier ones are
    settled.

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
        """A new connection begins."""
        self.generation += 1
        self._packet_ids.clear()
        self._settled.clear()

    def receive(self, packet_id: int) -> Ticket:
        """A message arrived."""
        self._packet_ids.append(packet_id)
        return self.generation, self._first + len(self._packet_ids) - 1

    def settle(self, tickets: Iterable[Ticket]) -> list[int]:
        """Kafka has these; the packet ids that may be acknowledged now, in order."""
        generation, settled = self.generation, self._settled
        settled.update(place for origin, place in tickets if origin == generation)
        released: list[int] = []
        while self._first in settled:
            settled.remove(self._first)
            self._first += 1
            released.append(self._packet_ids.popleft())
        return released
