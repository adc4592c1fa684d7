"""The records in flight of this member's partitions, and the back-pressure that bounds them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from aiokafka import ConsumerRecord, TopicPartition

from processors.arrivals.job import FrameJob
from processors.arrivals.progress import OffsetRegressionError, PartitionProgress
from processors.settings import ProcessorSettings

_SHARE_OF_ONE: Final = 1 / 64
"""Weight of one job in the usual size of jobs."""


class PartitionTracker:
    """The partitions of this member, each with its progress, and the jobs that are not finished.

    Back-pressure works by fetching less. A partition with its share in flight is not fetched, and none is fetched when
    the bounds on frames or bytes are reached. aiokafka's own pause is not used: it discards records that are already
    fetched.
    """

    def __init__(self, settings: ProcessorSettings) -> None:
        self._settings = settings
        self.progress: dict[TopicPartition, PartitionProgress] = {}
        self.frames = 0
        self.bytes = 0
        self._waiting: dict[object, Counter[int]] = {}
        self._usual_bytes = 0.0
        self.room = asyncio.Event()
        self.unfinished = 0
        """Jobs without a result, including those of partitions that were revoked."""
        self.idle = asyncio.Event()
        """Set while no job is unfinished."""
        self.idle.set()
        self.lost = False
        """True after the topic was lost: the committed offsets belong to another log, and the next log is read from its
        beginning.
        """

    def check(self, records: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        """Raise OffsetRegressionError, before any of `records` is counted, if they belong to another log than the
        previous ones.
        """
        for partition, found in records.items():
            progress = self.progress.get(partition)
            if found and progress is not None and progress.last is not None and found[0].offset <= progress.last:
                self.lost = True
                raise OffsetRegressionError(
                    f"expected offsets above {progress.last} from partition {partition.partition}, "
                    f"got {found[0].offset}: its log began again"
                )

    def admit(self, record: ConsumerRecord, now_s: float) -> FrameJob:
        """Count a record as in flight, and return its job. `now_s` is monotonic."""
        partition = TopicPartition(record.topic, record.partition)
        progress = self.progress.get(partition)
        if progress is None:
            progress = self.progress[partition] = PartitionProgress()
        progress.begin(record.offset)
        progress.in_flight += 1
        job = FrameJob.of(record, progress, now_s)
        self.frames += 1
        self.bytes += job.frame_bytes
        self.unfinished += 1
        self.idle.clear()
        return job

    def enlarge(self, job: FrameJob, decoded_bytes: int) -> None:
        """Count the memory that the picture of a job will take."""
        job.decoded_bytes = decoded_bytes
        if job.counted:
            self.bytes += decoded_bytes

    def finish(self, job: FrameJob) -> None:
        """Mark a job's offset as finished: its result is safe in Kafka."""
        job.progress.finish(job.offset)
        self.drop(job)

    def drop(self, job: FrameJob) -> None:
        """Drop a job. Unless it is finished, Kafka delivers its record again."""
        self.release(job)
        self.unfinished -= 1
        if not self.unfinished:
            self.idle.set()

    def release(self, job: FrameJob) -> None:
        """Count a job as no longer in flight: it is done, or waits under another bound."""
        if job.counted:
            job.counted = False
            job.progress.in_flight -= 1
            self.frames -= 1
            size = job.frame_bytes + job.decoded_bytes
            self.bytes -= size
            self._usual_bytes += _SHARE_OF_ONE * (size - self._usual_bytes)
            self.room.set()

    def count_again(self, job: FrameJob) -> None:
        """Count a released job as in flight again: it no longer waits under the other bound."""
        if not job.counted:
            job.counted = True
            job.progress.in_flight += 1
            self.frames += 1
            self.bytes += job.frame_bytes + job.decoded_bytes

    def open_partitions(self) -> list[TopicPartition]:
        """Return the partitions that may be fetched; the others are paused."""
        if self.full:
            return []
        share = self.fair_share()
        return [tp for tp, p in self.progress.items() if p.in_flight < share and not p.recalling]

    @property
    def full(self) -> bool:
        """Whether the frames in flight have reached their number or bytes: no partition is fetched."""
        return self.frames >= self._settings.queue_frames or self.bytes >= self._settings.queue_bytes

    def fair_share(self) -> int:
        """Frames in flight of one partition above which the others are preferred; the hard limit is twice that."""
        settings = self._settings
        return max(min(settings.batch_frames, settings.queue_frames), settings.queue_frames // max(1, self.held))

    def blocked(self, step: object, waiting: Counter[int]) -> set[int]:
        """Return the partitions that are not read before frames in flight that wait for earlier ones are done.

        `waiting` has the number of such frames in `step`, by partition; the other steps count with their last numbers.
        """
        self._waiting[step] = waiting
        counts = sum(self._waiting.values(), Counter[int]())
        if self.full:
            return set(counts) if self.frames <= counts.total() else set()
        share = self.fair_share()
        return {tp.partition for tp, p in self.progress.items() if share <= p.in_flight <= counts[tp.partition]}

    def overfull_partitions(self, waiting: Counter[int]) -> set[int]:
        """Return the partitions in which too many frames wait for earlier ones.

        They may take less than half of a partition's share, and never all frames in flight at the bounds. `waiting` is
        their number by partition.
        """
        if self.full and self.frames <= waiting.total():
            return set(waiting)
        return {partition for partition, count in waiting.items() if 2 * count >= self.fair_share()}

    def fetch_limit(self) -> int:
        """Return the most records of the next fetch: the share, or as many as the bytes allow at their usual size."""
        left = self._settings.queue_bytes - self.bytes
        return max(1, min(self.fair_share(), int(left / max(1.0, self._usual_bytes))))

    @property
    def held(self) -> int:
        """Number of partitions of this member."""
        return len(self.progress)
