"""A recorder's membership of a consumer group: which partitions are its own, and when they are taken from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition

from schemas.transport.kafka.reader import Group

log = structlog.get_logger()


class Reassigned(Exception):  # noqa: N818  # what the group says, not a failure
    """The group has shared out anew: what was gathered may be somebody else's by now."""


class Membership(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no annotations
    """Of one reader in `group`; of none, a reader has every partition for good.

    The database, not the group, keeps two recorders from writing the same: what is said here only spares them the
    attempt, and the wait for each other.
    """

    def __init__(self, group: str | None = None, session_timeout_s: float = 6.0) -> None:
        self.group = group
        self._session_s = session_timeout_s
        self._shared_out = asyncio.Event()
        self._taken_up = False
        self._writing = asyncio.Lock()

    def join(self) -> Group | None:
        """Return the group of a reader that is about to join, with this as its listener; None without a group."""
        if self.group is None:
            return None
        # Records of one camera lie in the same partition of each topic: by range, they come to one recorder.
        return Group(self.group, self._session_s, self, by_range=True)

    def begin(self) -> None:
        """Forget earlier assignments: the reader joins again."""
        self._shared_out.clear()
        self._taken_up = False

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """The group shares out anew: what is being written is finished, if it does not last."""
        self._shared_out.clear()
        self._taken_up = False
        with suppress(TimeoutError):
            async with asyncio.timeout(self._session_s / 2):
                await self._writing.acquire()
            self._writing.release()

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """This is ours until the group shares out anew."""
        log.info("partitions_assigned", group=self.group, partitions=[f"{tp.topic}-{tp.partition}" for tp in assigned])
        self._shared_out.set()

    async def settled(self) -> None:
        """Wait until the group has shared out; what it says from then on is noticed by `check`."""
        if self.group is not None:
            await self._shared_out.wait()
        self._taken_up = True

    @property
    def is_settled(self) -> bool:
        """Whether nothing was taken since `settled`."""
        return self._taken_up

    def check(self) -> None:
        """Raise `Reassigned` when something was."""
        if not self._taken_up:
            raise Reassigned(f"{self.group} shares its partitions out anew")

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """No partition is given up meanwhile, for a while; `Reassigned` when one was before."""
        async with self._writing:
            self.check()
            yield
