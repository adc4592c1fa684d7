"""The consumer group's side: partitions, what is in flight from each, back-pressure and commits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

import structlog
from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from processors.arrivals.progress import OffsetsWentBack, PartitionProgress
from processors.settings import ProcessorSettings
from schemas.transport.kafka.reader import Group, Reader

_FETCH_WAIT_S: Final = 0.25
_COMMIT_S: Final = 5.0
"""aiokafka looks for the group's coordinator for ever, even for a consumer that was closed meanwhile."""

log = structlog.get_logger()


def frames_reader(settings: ProcessorSettings, inbox: Inbox, on_skipped: Callable[[int], None]) -> Reader:
    """Return a reader of the frames topic, by the processors' group; `inbox` listens to its assignments."""
    group = Group(settings.group, settings.session_timeout_s, inbox, settings.instance)
    return Reader(
        settings.kafka,
        settings.frames_topic,
        group=group,
        name=settings.name,
        fetch_wait_s=_FETCH_WAIT_S,
        on_skipped=on_skipped,
    )


class Inbox(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no annotations
    """The partitions that this member holds, each with its progress.

    Full means wait: a partition that has its share in flight is not asked for records, and none is when the bounds on
    frames or bytes are reached. It is not paused by the client's own means, which throw away what was fetched already.
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
        """`drain` finishes what is in flight within so many seconds, `forget` drops what revoked partitions left.

        `note` says what is committed along with an offset of a partition; `recall` gets it back when a partition is
        assigned, and either returns false or calls what it is given once records may be taken.
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
        """The topic was lost: what was committed is of another log than the next one, which is read from its beginning.
        """

    # What is in flight

    def check(self, records: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        """Raise OffsetsWentBack, before any of `records` is taken, when they are of another log than those before."""
        for partition, found in records.items():
            progress = self._progress.get(partition)
            if found and progress is not None and progress.last is not None and found[0].offset <= progress.last:
                self.lost = True
                raise OffsetsWentBack(
                    f"expected offsets above {progress.last} from partition {partition.partition}, "
                    f"got {found[0].offset}: its log was begun anew"
                )

    def take(self, record: ConsumerRecord) -> PartitionProgress:
        """Count a record in; the progress of its partition."""
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
        """Count a record of so many bytes out: it is done, or waits where another bound holds."""
        progress.in_flight -= 1
        self.frames -= 1
        self.bytes -= size
        self.room.set()

    def open_partitions(self) -> list[TopicPartition]:
        """The partitions that may give more; also counts the others as paused."""
        settings = self._settings
        if self.frames >= settings.queue_frames or self.bytes >= settings.queue_bytes:
            return []
        share = self.share()
        return [tp for tp, p in self._progress.items() if p.in_flight < share and not p.recalling]

    def share(self) -> int:
        """Frames that one partition may have in flight before the others are preferred; it may reach twice that."""
        settings = self._settings
        return max(min(settings.batch_frames, settings.queue_frames), settings.queue_frames // max(1, self.held))

    @property
    def held(self) -> int:
        """Partitions that are ours. (Not `__len__`: aiokafka does not call a listener that is false.)"""
        return len(self._progress)

    def lag(self) -> int:
        """Records in Kafka that were not taken yet, as far as the last fetches know."""
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
        """Commit what is done. A failure is not one of the role's: what is not committed is delivered again."""
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
            log.info("partitions were lost before their offsets were committed", partitions=len(offsets))
        except (KafkaError, IllegalStateError, TimeoutError) as error:
            log.warning("commit failed", error=f"{type(error).__name__}: {error}")
        else:
            for progress, offset in marks:
                progress.committed(offset)

    # Rebalances

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Drain and commit; what does not end in time is delivered again to whoever gets the partition."""
        self._on_assigned(False)
        if not self._progress:
            return
        if self.reader is not None and not self.reader.partitions_of(self._settings.frames_topic):
            # aiokafka would try to commit until there is another topic of that name, and then succeed.
            self.lost = True
        deadline_s = min(self._settings.drain_s, self._settings.session_timeout_s / 2)
        try:
            async with asyncio.timeout(deadline_s):
                await self._drain(deadline_s * 0.8)
                await self.commit()
        except TimeoutError:
            log.info("a revoked partition was not drained in time")
        self.clear()

    def clear(self) -> None:
        """Forget all partitions: they are no longer ours."""
        gone = set(self._progress.values())
        self._progress.clear()
        self._forget(gone)
        self.room.set()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Start anew with these, possibly none when there are more members than partitions."""
        if assigned and self.lost and self.reader is not None:
            await self.reader.seek_to_beginning(*assigned)
            self.lost = False
            log.warning("the frames topic was lost: its next one is read from the beginning")
        notes = await self._committed_notes(assigned)
        for partition in assigned:
            progress = self._progress.setdefault(partition, PartitionProgress())
            progress.recalling = self._recall(
                partition.partition, notes.get(partition, ""), partial(self._recalled, progress)
            )
        log.info("partitions assigned", partitions=sorted(tp.partition for tp in assigned))
        self._on_assigned(True)
        self.room.set()

    async def _committed_notes(self, partitions: set[TopicPartition]) -> dict[TopicPartition, str]:
        """What was committed along with the offsets; without it key frames are asked for at the cameras."""
        if self.reader is None or not partitions:
            return {}
        try:
            async with asyncio.timeout(_COMMIT_S):
                return await self.reader.committed_notes(partitions)
        except (KafkaError, TimeoutError) as error:
            log.warning("the notes of the last commits are unknown", error=f"{type(error).__name__}: {error}")
            return {}

    def _recalled(self, progress: PartitionProgress) -> None:
        progress.recalling = False
        self.room.set()
