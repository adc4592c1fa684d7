"""Metrics of Kafka, by its protocol: its nodes, the content of our topics, the progress of their readers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import Final

from aiokafka.errors import GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError
from aiokafka.structs import TopicPartition
from prometheus_client import CollectorRegistry, Gauge

from infra.monitor.mirrored_counters import MirroredSum
from schemas import metrics
from schemas.topics import PROCESSORS_GROUP, KafkaTopic
from schemas.transport.access import KafkaAddress
from schemas.transport.kafka.admin import Admin
from schemas.transport.kafka.clients import REQUEST_S
from schemas.transport.kafka.reader import Reader

RATE_OVER_S: Final = 60.0
"""Seconds over which the rate of the processors is measured."""
LEAST_RATE: Final = 1.0
"""Frames per second that divide the lag when fewer are processed: stopped processors show the lag itself."""
_OURS = frozenset(topic.value for topic in KafkaTopic)
_NO_GROUP = "none"
_MOVING = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)
"""A group's coordinator is moving: the last value stays until the next reading."""


class WaitingWork:
    """The time that the processors will take for the frames in Kafka at their present rate.

    Frames that cameras still hold are not counted: those of a camera that is gone, or behind a slow uplink, would ask
    for processors without end. Frames that bridges hold back are not counted either: the devices are busy meanwhile.
    """

    def __init__(self) -> None:
        self._processed: deque[tuple[float, int]] = deque()

    def seconds(self, now_s: float, lag: int, processed: int) -> float:
        """Return the time for `lag` frames at `now_s`; 0 at the first call, before there is a rate.

        `processed` frames have been finished in all.
        """
        self._processed.append((now_s, processed))
        if len(self._processed) == 1:
            return 0.0
        # The oldest count that is kept is the last one from before the interval.
        while now_s - self._processed[1][0] >= RATE_OVER_S:
            self._processed.popleft()
        since_s, before = self._processed[0]
        rate = (processed - before) / (now_s - since_s) if now_s > since_s else 0.0
        return lag / max(rate, LEAST_RATE)


class KafkaMetrics:
    """The metrics of Kafka, read by two clients that are replaced after a failure."""

    def __init__(self, registry: CollectorRegistry, up: Gauge, address: KafkaAddress) -> None:
        self._up = up
        self._address = address
        self._brokers = metrics.KAFKA_BROKERS.on(registry)
        self._under_replicated = metrics.KAFKA_UNDER_REPLICATED.on(registry)
        self._stored = metrics.KAFKA_HELD.on(registry)
        self._lag = metrics.KAFKA_GROUP_LAG.on(registry)
        self._lag.labels(_NO_GROUP).set(0)
        self._waiting_work = WaitingWork()
        self._waiting_s = metrics.WORK_WAITING.on(registry)
        self._processed: dict[TopicPartition, int] = {}
        """The last known progress of the processors in each partition of frames."""
        records = metrics.KAFKA_END.on(registry)
        self._records = {topic: MirroredSum(records, topic) for topic in sorted(_OURS)}
        self._ends: dict[TopicPartition, int] = {}
        """The last known end of each partition: one without a leader keeps it."""
        self._groups: set[str] = set()
        """The groups with a series."""
        self._clients: tuple[Admin, Reader] | None = None
        self._closing = AsyncExitStack()

    async def measure(self) -> None:
        """Update the metrics. Raises what aiokafka raises, and TimeoutError, when Kafka does not answer."""
        try:
            async with asyncio.timeout(2 * REQUEST_S):  # the search for a group's coordinator has no end of its own
                await self._measure()
        except BaseException:
            self._up.set(0)
            # The autoscaler multiplies by this value at each step: an old one would add processors without end.
            self._waiting_s.set(0)
            await self.close()
            raise
        self._up.set(1)

    async def _measure(self) -> None:
        if self._clients is None:
            async with AsyncExitStack() as stack:
                admin = await stack.enter_async_context(Admin(self._address))
                reader = await stack.enter_async_context(Reader(self._address))
                self._clients, self._closing = (admin, reader), stack.pop_all()
        admin, reader = self._clients
        self._brokers.set(len((await admin.cluster()).nodes))
        partitions = [each for each in await admin.partitions() if each.place.topic in _OURS]
        self._under_replicated.set(
            sum(each.leader < 0 or len(each.in_sync) < len(each.replicas) for each in partitions)
        )
        led = [each.place for each in partitions if each.leader >= 0]
        if led:
            await self._measure_topics(admin, reader, led)

    async def _measure_topics(self, admin: Admin, reader: Reader, partitions: list[TopicPartition]) -> None:
        ends = await reader.ends(partitions)
        begins = await reader.beginnings(partitions)
        self._ends |= ends
        stored: Counter[str] = Counter()
        for tp, end in ends.items():
            stored[tp.topic] += end - begins[tp]
        for topic, follower in self._records.items():
            follower.update({tp: end for tp, end in self._ends.items() if tp.topic == topic})
            self._stored.labels(topic).set(stored[topic])
        try:
            groups = set(await admin.groups())
        except _MOVING:
            return
        for group in self._groups - groups:  # Kafka has deleted it
            self._lag.remove(group)
        self._groups = groups
        for group in groups:
            try:
                committed = await admin.committed(group)
            except _MOVING:
                continue
            waiting = [max(0, ends[tp] - at) for tp, at in committed.items() if tp in ends]
            self._lag.labels(group).set(sum(waiting))
            if group == PROCESSORS_GROUP:
                self._measure_waiting_work(begins, ends, committed)

    def _measure_waiting_work(
        self,
        begins: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        committed: Mapping[TopicPartition, int],
    ) -> None:
        frames = [tp for tp in ends if tp.topic == KafkaTopic.FRAMES.value]
        at = {tp: max(committed.get(tp, 0), begins[tp]) for tp in frames}
        self._processed |= at
        lag = sum(max(0, ends[tp] - at[tp]) for tp in frames)
        self._waiting_s.set(self._waiting_work.seconds(time.monotonic(), lag, sum(self._processed.values())))

    async def close(self) -> None:
        """Close the clients."""
        closing, self._closing, self._clients = self._closing, AsyncExitStack(), None
        with suppress(asyncio.CancelledError):
            await closing.aclose()
