"""A check that every partition of the frames topic has a reader.

A member without partitions is normal if the group has more members than partitions. It is faulty if the topic was lost:
the member's own assignment does not show that. The assignments of all members, compared with the topic, do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError

from processors.settings import ProcessorSettings
from schemas.errors import typed_text
from schemas.transport.kafka.admin import Admin

POLL_S: Final = 2.0
_SOON_S: Final = 0.25
"""Seconds between two checks while a partition has no reader."""
PATIENCE_S: Final = 12.0
"""Seconds without a reader for a partition before the member rejoins the group: its leader may yet assign it."""
_ANSWER_S: Final = 4.0


class GroupReport(NamedTuple):
    """The result of one check."""

    error: str = ""
    """The reason why Kafka does not answer; empty if it does."""
    unread: str | None = None
    """The reason why frames are not read; empty if they are, None if it is not known, as during a rebalance."""
    topic_lost: bool = False
    rejoin: bool = False
    """True if a partition has had no reader for `PATIENCE_S` although the group has settled."""


class GroupWatch:
    """A task that checks the group until it is cancelled."""

    def __init__(self, settings: ProcessorSettings, report: Callable[[GroupReport], None]) -> None:
        """`report` gets the result of each check."""
        self._settings = settings
        self._report = report
        self._unread_s: float | None = None
        self._absences = 0
        """Successive answers of Kafka without the topic. A node that starts may give one."""

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            try:
                async with Admin(self._settings.kafka, _ANSWER_S) as admin:
                    while True:
                        async with asyncio.timeout(_ANSWER_S):
                            found = await self._check(admin)
                        self._report(found)
                        await asyncio.sleep(_SOON_S if found.unread else POLL_S)
            except (TimeoutError, KafkaError, OSError) as error:
                self._report(GroupReport(typed_text(error)))
            await asyncio.sleep(_SOON_S)

    async def _check(self, admin: Admin) -> GroupReport:
        topic, group = self._settings.frames_topic, self._settings.group
        there = {each.place.partition for each in await admin.partitions(topic)}
        since_s, self._unread_s = self._unread_s, None
        if not there:
            self._absences += 1
            missing = f"expected the topic {topic} in Kafka, which has none of that name"
            return GroupReport(unread=missing, topic_lost=self._absences > 1)
        self._absences = 0
        held = await held_partitions(admin, group, topic)
        if held is None:
            return GroupReport()
        unread = sorted(there - held)
        if not unread:
            return GroupReport(unread="")
        now_s = time.monotonic()
        self._unread_s = now_s if since_s is None else since_s
        rejoin = now_s - self._unread_s >= PATIENCE_S
        if rejoin:
            self._unread_s = None
        why = f"expected a reader in {group} for each partition of {topic}, there is none for {unread}"
        return GroupReport(unread=why, rejoin=rejoin)


async def held_partitions(admin: Admin, group: str, topic: str) -> set[int] | None:
    """Return the partitions of the topic that members of the group hold; None if the group is not settled."""
    try:
        state = await admin.group(group)
    except GroupCoordinatorNotAvailableError:
        return None  # Kafka has just started
    if not state.settled:
        return None
    return {place.partition for held in state.members.values() for place in held if place.topic == topic}
