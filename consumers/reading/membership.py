"""A recorder's membership of a consumer group: which partitions are its own, and when they are taken from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor

HEARTBEAT_MS: Final = 500
_METADATA_MS: Final = 5_000
"""How old may be what the group's leader knows of the topics: it shares out anew when that changes."""
_REQUEST_MS: Final = 15_000
"""Joining a group takes as long as its slowest member."""

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
        self._session_ms = round(session_timeout_s * 1000)
        self._shared_out = asyncio.Event()
        self._taken_up = False
        self._writing = asyncio.Lock()

    def options(self) -> Mapping[str, object]:
        """What a consumer of the group is made with."""
        if self.group is None:
            return {"group_id": None}
        return {
            "group_id": self.group,
            "session_timeout_ms": self._session_ms,
            "rebalance_timeout_ms": self._session_ms,
            "heartbeat_interval_ms": HEARTBEAT_MS,
            "metadata_max_age_ms": _METADATA_MS,
            "request_timeout_ms": _REQUEST_MS,
            # What belongs to one camera lies in the same partition of each topic: so it comes to one recorder.
            "partition_assignment_strategy": (RangePartitionAssignor,),
        }

    def listener(self) -> Membership | None:
        """What the consumer tells of partitions given and taken."""
        self._shared_out.clear()
        self._taken_up = False
        return self if self.group is not None else None

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """The group shares out anew: what is being written is finished, if it does not last."""
        self._shared_out.clear()
        self._taken_up = False
        with suppress(TimeoutError):
            async with asyncio.timeout(self._session_ms / 2000):
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
