"""Whether every partition of the frames topic has a reader.

A member without partitions is in order where there are more members than partitions, and deaf where the topic was lost:
its own assignment does not tell. The members' assignments together, and the topic, do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError

from processors.settings import ProcessorSettings
from schemas.transport.access import kafka_options
from schemas.transport.kafka.clients import leave, start

LOOK_S: Final = 2.0
_SOON_S: Final = 0.25
"""Between two looks while something is not read."""
PATIENCE_S: Final = 12.0
"""With a partition that has no reader, before the group is left and joined again: its leader may yet share out."""
_ANSWER_S: Final = 4.0
_SHARING_OUT: Final = ("PreparingRebalance", "CompletingRebalance")


class GroupWatch:
    """Looks again and again, for as long as it runs."""

    def __init__(
        self,
        settings: ProcessorSettings,
        answers: Callable[[str], None],
        read: Callable[[str], None],
        lost: Callable[[], None],
        deaf: Callable[[], None],
    ) -> None:
        """`answers` hears at each look why Kafka does not answer, `read` why frames are not read; both "" when all is
        well. `lost` is called when there is no such topic, `deaf` when some partition has had no reader for
        `PATIENCE_S`, though the group has settled.
        """
        self._settings = settings
        self._answers = answers
        self._read = read
        self._lost = lost
        self._deaf = deaf
        self._unread_s: float | None = None

    async def run(self) -> None:
        """Look for ever."""
        while True:
            admin = AIOKafkaAdminClient(**kafka_options(self._settings.kafka), request_timeout_ms=int(_ANSWER_S * 1000))
            try:
                async with asyncio.timeout(_ANSWER_S):
                    await start(admin)
                while True:
                    async with asyncio.timeout(_ANSWER_S):
                        complaint = await self._look(admin)
                    self._answers("")
                    if complaint is not None:
                        self._read(complaint)
                    await asyncio.sleep(_SOON_S if complaint else LOOK_S)
            except (TimeoutError, KafkaError, OSError) as error:
                self._answers(f"{type(error).__name__}: {error}")
            finally:
                await leave(admin.close, deadline_s=_ANSWER_S)
            await asyncio.sleep(_SOON_S)

    async def _look(self, admin: AIOKafkaAdminClient) -> str | None:
        """Why frames are not read, "" when they are, None while the group is sharing out."""
        topic, group = self._settings.frames_topic, self._settings.group
        (described,) = await admin.describe_topics([topic])
        there = {partition["partition"] for partition in described["partitions"]}
        since_s, self._unread_s = self._unread_s, None
        if not there:
            self._lost()
            return f"expected the topic {topic} in Kafka, which has none of that name"
        held = await held_partitions(admin, group, topic)
        if held is None:
            return None
        unread = sorted(there - held)
        if not unread:
            return ""
        now_s = time.monotonic()
        self._unread_s = now_s if since_s is None else since_s
        if now_s - self._unread_s >= PATIENCE_S:
            self._unread_s = None
            self._deaf()
        return f"expected a reader in {group} for each partition of {topic}, there is none for {unread}"


async def held_partitions(admin: AIOKafkaAdminClient, group: str, topic: str) -> set[int] | None:
    """The partitions of the topic that the members of the group hold; None when the group is not settled."""
    try:
        answers = await admin.describe_consumer_groups([group])
    except GroupCoordinatorNotAvailableError:
        return None  # Kafka has just started
    held: set[int] = set()
    for answer in answers:
        # A group is: error, name, state, protocol type, protocol, members; a member ends with its assignment.
        for described in answer.groups:
            if described[0] or described[2] in _SHARING_OUT:
                return None
            found: list[Any] = [ConsumerProtocol.ASSIGNMENT.decode(member[-1]) for member in described[5] if member[-1]]
            held |= {tp.partition for each in found for tp in each.partitions() if tp.topic == topic}
    return held
