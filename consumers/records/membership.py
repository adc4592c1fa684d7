"""A recorder's membership of a consumer group: its partitions, and their revocation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition

from schemas.transport.kafka.reader import Group
from schemas.waiting import wait_at_most

log = structlog.get_logger()


class Reassigned(Exception):  # noqa: N818  # a state of the group, not a failure
    """The group has rebalanced: gathered records may belong to another recorder by now."""


class Membership(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no annotations
    """The membership in `group`. Without a group, the reader has every partition permanently.

    The database, not the group, prevents two recorders from writing the same records. The membership only spares them
    the attempt and the wait for each other.
    """

    def __init__(self, group: str | None = None, session_timeout_s: float = 6.0) -> None:
        self.group = group
        self._session_s = session_timeout_s
        self._shared_out = asyncio.Event()
        self._taken_up = False
        self._writing = asyncio.Lock()

    def join(self) -> Group | None:
        """Return the group of a reader that is about to join, with this listener; None without a group."""
        if self.group is None:
            return None
        # Records of one camera have the same partition number in each topic. Range assignment gives them to one
        # recorder.
        return Group(self.group, self._session_s, self, by_range=True)

    def begin(self) -> None:
        """Clear earlier assignments: the reader joins again."""
        self._shared_out.clear()
        self._taken_up = False

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Finish a short write in progress before the rebalance."""
        self._shared_out.clear()
        self._taken_up = False
        with suppress(TimeoutError):
            async with asyncio.timeout(self._session_s / 2):
                await self._writing.acquire()
            self._writing.release()

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Record the assigned partitions."""
        log.info("partitions_assigned", group=self.group, partitions=[f"{tp.topic}-{tp.partition}" for tp in assigned])
        self._shared_out.set()

    async def settled(self, within_s: float) -> bool:
        """Wait for the end of the rebalance. Return False if it takes longer. `check` detects later ones."""
        if self.group is not None:
            await wait_at_most(self._shared_out, within_s)
        self._taken_up = self.group is None or self._shared_out.is_set()
        return self._taken_up

    @property
    def is_settled(self) -> bool:
        """Whether no partition was revoked since `settled`."""
        return self._taken_up

    def check(self) -> None:
        """Raise `Reassigned` if a partition was revoked since `settled`."""
        if not self._taken_up:
            raise Reassigned(f"{self.group}: the group rebalances")

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Delay a revocation for a limited time. Raises `Reassigned` if one happened before."""
        async with self._writing:
            self.check()
            yield
