"""The processor's side of the consumer group: partitions, records in flight, back-pressure and commits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

import structlog
from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from processors.arrivals.progress import OffsetRegressionError, PartitionProgress
from processors.settings import ProcessorSettings
from schemas.transport.kafka.reader import Group, Reader

_FETCH_WAIT_S: Final = 0.25
_COMMIT_S: Final = 5.0
"""Time limit of a commit: aiokafka looks for the group's coordinator without end, even for a closed consumer."""

log = structlog.get_logger()


def frames_reader(settings: ProcessorSettings, tracker: PartitionTracker, on_skipped: Callable[[int], None]) -> Reader:
    """Return a reader of the frames topic, by the processors' group; `tracker` listens to its assignments."""
    group = Group(settings.group, settings.session_timeout_s, tracker, settings.instance)
    return Reader(
        settings.kafka,
        settings.frames_topic,
        group=group,
        name=settings.name,
        fetch_wait_s=_FETCH_WAIT_S,
        on_skipped=on_skipped,
    )


class PartitionTracker(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no annotations
    """The partitions of this member, each with its progress.

    Back-pressure is by fetching less. A partition with its share in flight is not fetched, and none is fetched when the
    bounds on frames or bytes are reached. aiokafka's own pause is not used: it discards records that are already
    fetched.
    """

    def __init__(
        self,
        settings: ProcessorSettings,
        drain: Callable[[float], Awaitable[None]],
        forget: Callable[[set[PartitionProgress]], None],
        on_assigned: Callable[[bool], None],
        note: Callable[[int, int], str] = lambda _partition, _offset: "",
        recall: Callable[[int, str, Callable[[], None]], bool] = lambda _partition, _note, _done: False,
    ) -> None:
        """`drain` finishes the records in flight within a number of seconds; `forget` drops the rest of revoked
        partitions.

        `note` returns the metadata for a commit of a partition's offset. When a partition is assigned, `recall` gets
        that note and a callback. It either returns false, or calls the callback once records may be read.
        """
        self._settings = settings
        self._drain = drain
        self._forget = forget
        self._on_assigned = on_assigned
        self._note = note
        self._recall = recall
        self._progress: dict[TopicPartition, PartitionProgress] = {}
        self.reader: Reader | None = None
        self.frames = 0
        self.bytes = 0
        self.room = asyncio.Event()
        self.lost = False
        """True after the topic was lost: the committed offsets belong to another log, and the next log is read from its
        beginning.
        """

    # Records in flight

    def check(self, records: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        """Raise OffsetRegressionError, before any of `records` is counted, if they belong to another log than the
        previous ones.
        """
        for partition, found in records.items():
            progress = self._progress.get(partition)
            if found and progress is not None and progress.last is not None and found[0].offset <= progress.last:
                self.lost = True
                raise OffsetRegressionError(
                    f"expected offsets above {progress.last} from partition {partition.partition}, "
                    f"got {found[0].offset}: its log began again"
                )

    def take(self, record: ConsumerRecord) -> PartitionProgress:
        """Count a record as in flight, and return the progress of its partition."""
        partition = TopicPartition(record.topic, record.partition)
        progress = self._progress.get(partition)
        if progress is None:
            progress = self._progress[partition] = PartitionProgress()
        progress.take(record.offset)
        progress.in_flight += 1
        self.frames += 1
        self.bytes += len(record.value or b"")
        return progress

    def release(self, progress: PartitionProgress, size: int) -> None:
        """Count a record of `size` bytes as no longer in flight: it is done, or waits under another bound."""
        progress.in_flight -= 1
        self.frames -= 1
        self.bytes -= size
        self.room.set()

    def open_partitions(self) -> list[TopicPartition]:
        """Return the partitions that may be fetched, and count the others as paused."""
        settings = self._settings
        if self.frames >= settings.queue_frames or self.bytes >= settings.queue_bytes:
            return []
        share = self.share()
        return [tp for tp, p in self._progress.items() if p.in_flight < share and not p.recalling]

    def share(self) -> int:
        """Frames in flight of one partition above which the others are preferred; the hard limit is twice that."""
        settings = self._settings
        return max(min(settings.batch_frames, settings.queue_frames), settings.queue_frames // max(1, self.held))

    @property
    def held(self) -> int:
        """Partitions of this member. (Not `__len__`: aiokafka does not call a listener that is false.)"""
        return len(self._progress)

    def lag(self) -> int:
        """Records in Kafka that were not read yet, by the last fetches."""
        reader = self.reader
        if reader is None:
            return 0
        behind = 0
        for partition, progress in self._progress.items():
            try:
                high = reader.high_watermark(partition)
            except (AssertionError, IllegalStateError):  # it was revoked a moment ago
                continue
            if high is not None and progress.last is not None:
                behind += max(0, high - progress.last - 1)
        return behind

    # Commits

    async def commit(self) -> None:
        """Commit the finished offsets. A failure is no failure of the role: uncommitted records are delivered again."""
        reader = self.reader
        if reader is None or self.lost:
            return
        offsets: dict[TopicPartition, int | tuple[int, str]] = {}
        marks: list[tuple[PartitionProgress, int]] = []
        for partition, progress in self._progress.items():
            offset = progress.uncommitted()
            if offset is not None:
                note = self._note(partition.partition, offset)
                offsets[partition] = (offset, note) if note else offset
                marks.append((progress, offset))
        if not offsets:
            return
        try:
            async with asyncio.timeout(_COMMIT_S):
                await reader.commit(offsets)
        except CommitFailedError:
            log.info("partitions_lost_uncommitted", partitions=len(offsets))
        except (KafkaError, IllegalStateError, TimeoutError) as error:
            log.warning("commit_failed", error=f"{type(error).__name__}: {error}")
        else:
            for progress, offset in marks:
                progress.committed(offset)

    # Rebalances

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Drain and commit; the partition's next owner gets the records that are not done in time."""
        self._on_assigned(False)
        if not self._progress:
            return
        if self.reader is not None and not self.reader.partitions_of(self._settings.frames_topic):
            # aiokafka would retry the commit until another topic of that name exists, and then commit to it.
            self.lost = True
        deadline_s = min(self._settings.drain_s, self._settings.session_timeout_s / 2)
        try:
            async with asyncio.timeout(deadline_s):
                await self._drain(deadline_s * 0.8)
                await self.commit()
        except TimeoutError:
            log.info("drain_timed_out")
        self.clear()

    def clear(self) -> None:
        """Drop all partitions: this member no longer holds them."""
        gone = set(self._progress.values())
        self._progress.clear()
        self._forget(gone)
        self.room.set()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Begin with these partitions; there are none if the group has more members than partitions."""
        if assigned and self.lost and self.reader is not None:
            await self.reader.seek_to_beginning(*assigned)
            self.lost = False
            log.warning("topic_recreated")
        notes = await self._committed_notes(assigned)
        for partition in assigned:
            progress = self._progress.setdefault(partition, PartitionProgress())
            progress.recalling = self._recall(
                partition.partition, notes.get(partition, ""), partial(self._recalled, progress)
            )
        log.info("partitions_assigned", partitions=sorted(tp.partition for tp in assigned))
        self._on_assigned(True)
        self.room.set()

    async def _committed_notes(self, partitions: set[TopicPartition]) -> dict[TopicPartition, str]:
        """Return the notes of the last commits; without them, key frames are requested from the cameras."""
        if self.reader is None or not partitions:
            return {}
        try:
            async with asyncio.timeout(_COMMIT_S):
                return await self.reader.committed_notes(partitions)
        except (KafkaError, TimeoutError) as error:
            log.warning("commit_notes_unavailable", error=f"{type(error).__name__}: {error}")
            return {}

    def _recalled(self, progress: PartitionProgress) -> None:
        progress.recalling = False
        self.room.set()
