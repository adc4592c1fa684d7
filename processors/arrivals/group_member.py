"""This member of the processors' consumer group: its reader, its commits, and its partitions as they come and go."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from processors.arrivals.partitions import PartitionTracker
from processors.arrivals.progress import PartitionProgress
from processors.metrics import ProcessorMetrics
from processors.settings import ProcessorSettings
from schemas.errors import typed_text
from schemas.runtime.health import Health
from schemas.transport.kafka.reader import Group, Reader, Records

_FETCH_WAIT_S: Final = 0.25
_GATHERED_BYTES: Final = 2**20
"""Bytes with which Kafka answers before it has gathered for the whole time."""
_COMMIT_S: Final = 5.0
"""Time limit of a commit: aiokafka looks for the group's coordinator without end, even for a closed consumer."""

log = structlog.get_logger()


class Jobs(Protocol):
    """The jobs of this member's partitions: the processor's chain of steps."""

    async def drain(self, seconds: float) -> None:
        """Finish the jobs in flight, or as many as `seconds` allow."""

    def discard(self, partition: int) -> None:
        """Drop the waiting jobs of a partition: Kafka delivers them again."""


class KeyFrameNotes(Protocol):
    """The places of key frames, as a note of each commit: the step that awaits key frames."""

    def note(self, partition: int, before: int) -> str:
        """Return the metadata for a commit of the offset `before`."""

    def recall_partition(self, partition: int, note: str, done: Callable[[], None]) -> bool:
        """Read back the key frames of a note, then call `done`; return False if there is nothing to read."""


class GroupMember(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no annotations
    """The member, while it has joined the group. It listens to its own assignments."""

    def __init__(
        self,
        settings: ProcessorSettings,
        tracker: PartitionTracker,
        jobs: Jobs,
        key_frames: KeyFrameNotes,
        metrics: ProcessorMetrics,
        health: Health,
    ) -> None:
        self._settings = settings
        self._tracker = tracker
        self._jobs = jobs
        self._key_frames = key_frames
        self._health = health
        self.reader = Reader(
            settings.kafka,
            settings.frames_topic,
            group=Group(settings.group, settings.session_timeout_s, self, settings.instance),
            name=settings.name,
            fetch_wait_s=settings.gather_s or _FETCH_WAIT_S,
            least_bytes=_GATHERED_BYTES if settings.gather_s else 1,
            on_skipped=metrics.kafka_damaged.inc,
        )
        self.joined = False
        self._idle = False
        """True while the group has assigned no partition to this member."""
        self._commits = True
        """False from a revocation without the topic until the next assignment: another topic may get that name."""

    async def join(self) -> None:
        """Open the reader; the group assigns partitions later."""
        self.joined = True
        await self.reader.open()

    async def leave(self, deadline_s: float, *, keeps_place: bool = True) -> None:
        """Close the reader, and leave the group; see `Reader.close`."""
        joined, self.joined = self.joined, False
        self._idle = False
        self.clear()
        if joined:
            self._health.set("assigned", False)
            await self.reader.close(deadline_s, keeps_place=keeps_place)

    def ready(self, records: Records) -> Records:
        """Return the records of partitions that may be read, and put the others back.

        A fetch that began before an assignment returns records of the new partitions too. Their key frames are read
        back first.
        """
        progress = self._tracker.progress
        early = {place for place in records if place not in progress or progress[place].recalling}
        self.reader.return_records({place: records[place] for place in early})
        return {place: found for place, found in records.items() if place not in early}

    def lag(self) -> int:
        """Records in Kafka that were not read yet, by the last fetches."""
        if not self.joined:
            return 0
        return sum(self._behind(partition, progress) or 0 for partition, progress in self._tracker.progress.items())

    def _behind(self, partition: TopicPartition, progress: PartitionProgress) -> int | None:
        """Return the records of a partition that were not read yet, by its last fetch; None if it is not known."""
        try:
            high = self.reader.high_watermark(partition)
        except (AssertionError, IllegalStateError):  # it was revoked a moment ago
            return None
        return None if high is None or progress.last is None else max(0, high - progress.last - 1)

    def _read_s(self, partition: TopicPartition, progress: PartitionProgress) -> float:
        """Return the monotonic time up to which all records of a partition are read; −∞ if it has unread ones."""
        if not self.joined or self._behind(partition, progress) != 0:
            return -math.inf
        return self.reader.fetched_s(partition)

    async def commit(self) -> None:
        """Commit the finished offsets. A failure is no failure of the role: uncommitted records are delivered again."""
        if not self.joined or self._tracker.lost or not self._commits:
            return
        offsets: dict[TopicPartition, int | tuple[int, str]] = {}
        marks: list[tuple[PartitionProgress, int]] = []
        for partition, progress in self._tracker.progress.items():
            offset = progress.uncommitted()
            if offset is not None:
                note = self._key_frames.note(partition.partition, offset)
                offsets[partition] = (offset, note) if note else offset
                marks.append((progress, offset))
        if not offsets:
            return
        try:
            async with asyncio.timeout(_COMMIT_S):
                await self.reader.commit(offsets)
        except CommitFailedError:
            log.info("partitions_lost_uncommitted", partitions=len(offsets))
        except (KafkaError, IllegalStateError, TimeoutError) as error:
            log.warning("commit_failed", error=typed_text(error))
        else:
            for progress, offset in marks:
                progress.committed(offset)

    # Rebalances

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Drain and commit; the partition's next owner gets the records that are not done in time."""
        self._health.set("assigned", False)
        self._idle = False
        if not self._tracker.held:
            return
        # One answer without the topic is no loss of it: a node that starts may give one. Kafka forgets the commits to a
        # lost one.
        self._commits = not (self.joined and self.reader.is_missing(self._settings.frames_topic))
        deadline_s = min(self._settings.drain_s, self._settings.session_timeout_s / 2)
        try:
            async with asyncio.timeout(deadline_s):
                await self._jobs.drain(deadline_s * 0.8)
                await self.commit()
        except TimeoutError:
            log.info("drain_timed_out")
        self.clear()

    def clear(self) -> None:
        """Drop all partitions and their waiting jobs: this member no longer holds them."""
        gone = list(self._tracker.progress)
        self._tracker.progress.clear()
        for each in gone:
            self._jobs.discard(each.partition)
        self._tracker.room.set()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Begin with these partitions; there are none if the group has more members than partitions."""
        if assigned and self._tracker.lost and self.joined:
            await self.reader.seek_to_beginning(*assigned)
            self._tracker.lost = False
            log.warning("topic_recreated")
        notes = await self._committed_notes(assigned)
        for each in assigned:
            progress = self._tracker.progress.setdefault(each, PartitionProgress())
            progress.read_s = partial(self._read_s, each, progress)
            progress.recalling = self._key_frames.recall_partition(
                each.partition, notes.get(each, ""), partial(self._recalled, progress)
            )
        self._commits = True
        log.info("partitions_assigned", partitions=sorted(each.partition for each in assigned))
        self._health.set("assigned", True)
        self._idle = not assigned
        self._tracker.room.set()

    def settle_loss(self) -> bool:
        """Settle the loss of a topic once each partition has a reader; return whether this member must join again.

        It must if it has partitions and nothing has made it begin the new topic at its beginning. If it has none, the
        others read the new topic: a partition that it gets later continues at their commits.
        """
        if self._idle:
            self._tracker.lost = False
        return self._tracker.lost and self._tracker.held > 0

    async def _committed_notes(self, partitions: set[TopicPartition]) -> dict[TopicPartition, str]:
        """Return the notes of the last commits; without them, key frames are requested from the cameras."""
        if not self.joined or not partitions:
            return {}
        try:
            async with asyncio.timeout(_COMMIT_S):
                return await self.reader.committed_notes(partitions)
        except (KafkaError, TimeoutError) as error:
            log.warning("commit_notes_unavailable", error=typed_text(error))
            return {}

    def _recalled(self, progress: PartitionProgress) -> None:
        progress.recalling = False
        self._tracker.room.set()
