"""One processor at work: from the partitions through the device to verdicts, and only then to commits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import structlog
from aiokafka import ConsumerRecord, TopicPartition

from processors.arrivals.await_key_frame import AwaitKeyFrame
from processors.arrivals.frames import TakenFrame, open_record
from processors.arrivals.key_frame_recall import KeyFrameRecall
from processors.arrivals.partitions import PartitionTracker
from processors.arrivals.progress import PartitionProgress
from processors.device.batch_executor import Failed
from processors.device.loaded_model import LoadedModel
from processors.device.loop import DeviceLoop
from processors.device.previews import PreviewTurns
from processors.device.scheduler import DeviceScheduler
from processors.metrics import ProcessorMetrics
from processors.results.delivery import Emitter
from processors.results.verdicts import VerdictPublisher
from processors.settings import ProcessorSettings
from schemas.errors import OverQuota, OverSize, WireError
from schemas.keys.keys import KeyRing
from schemas.messages.frame_size import over_size
from schemas.runtime import trace

log = structlog.get_logger()


class Processor:
    """Records in flight: from a record to a frame that waits for the device, and from its result to its end.

    All methods run on the event loop's thread.

    A record is finished when Kafka holds its verdict or dead letter. A record that is cancelled before that is
    delivered again.
    """

    def __init__(
        self,
        settings: ProcessorSettings,
        keys: KeyRing,
        loaded: LoadedModel,
        scheduler: DeviceScheduler,
        emitter: Emitter,
        metrics: ProcessorMetrics,
        on_assigned: Callable[[bool], None],
    ) -> None:
        self.publisher = VerdictPublisher(
            settings, keys, emitter, self._recorded, self._failed, lambda: metrics.stage_failed("pictures")
        )
        self.recall = KeyFrameRecall(
            settings.kafka, settings.frames_topic, lambda *found: self.await_key_frame.recalled(*found)
        )
        self.await_key_frame = AwaitKeyFrame(
            settings,
            keys,
            metrics,
            ready=self._ready,
            failed=self._has_no_key,
            request=self.publisher.request_key,
            recall=self.recall.want,
        )
        self.tracker = PartitionTracker(
            settings, self.drain, self._forget, on_assigned,
            self.await_key_frame.held.note, self.await_key_frame.recall_partition,
        )  # fmt: skip
        self.device = DeviceLoop(
            settings,
            loaded,
            scheduler,
            metrics,
            wanted=PreviewTurns(settings).take,
            conclude=self.publisher.conclude,
            waits=self._release,
            over_quota=self._refuse_over_quota,
        )
        self._settings = settings
        self._keys = keys
        self._metrics = metrics
        self._accepted_s = 0.0
        self._unfinished = 0
        self._idle = asyncio.Event()
        self._idle.set()

    # Arrival: records become frames that wait

    def accept(self, records: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> int:
        """Open Kafka's records, and return their number. A record without a verified frame becomes a dead letter.

        Raises OffsetRegressionError, before any record is counted, if they belong to another log than the previous
        ones.
        """
        self.tracker.check(records)
        now_s = self._accepted_s = time.monotonic()
        opened: list[TakenFrame] = []
        refused: list[tuple[ConsumerRecord, WireError, Callable[[], None]]] = []
        for partition_records in records.values():
            for record in partition_records:
                progress = self.tracker.take(record)
                try:
                    taken = open_record(record, self._keys, progress, now_s)
                except WireError as error:
                    size = len(record.value or b"")
                    refused.append((record, error, partial(self._refused, progress, record.offset, size)))
                    self._metrics.stage_failed("validate")
                else:
                    opened.append(taken)
        count = len(opened) + len(refused)
        if trace.on():
            trace.stamp("fetched", *(taken.identity for taken in opened))
        if count:
            self._unfinished += count
            self._idle.clear()
            admitted = [taken for taken in opened if self._admit(taken, now_s)]
            self._metrics.taken(sum(each.shape.values for each in admitted), sum(each.frame_bytes for each in admitted))
            self.device.refuse_over_quota()
            self._metrics.stage("validate", time.monotonic() - now_s)
        self.publisher.send_repeats()
        self.publisher.refuse(refused)
        return count

    def _admit(self, taken: TakenFrame, now_s: float) -> bool:
        """Pass on a frame of an accepted size; return false for any other."""
        most, shape = self._settings.max_frame_pixels, taken.shape
        if shape.pixels > most:
            self._refuse_unseen([taken], "validate", OverSize(over_size(shape.width, shape.height, most)))
            return False
        self.await_key_frame.submit(taken, now_s, repeated=self.publisher.repeat(taken))
        return True

    def _refuse_over_quota(self, frames: Sequence[TakenFrame]) -> None:
        quota_s = self._settings.camera_queue_s
        error = OverQuota(f"expected at most {quota_s:g} s of device time waiting for one camera beside others")
        self._refuse_unseen(frames, "queue", error)

    def _refuse_unseen(self, frames: Sequence[TakenFrame], stage: str, error: WireError) -> None:
        """Write dead letters with the frames' identities: the audit must find each frame that had a valid tag."""
        if frames:
            self._metrics.refused[error.reason].inc(len(frames))
            self.publisher.conclude([], [(taken, Failed(stage, error)) for taken in frames])

    def _ready(self, taken: TakenFrame) -> None:
        """Queue a frame for the device. The linger clock starts now: a wait for the key frame does not count."""
        taken.arrived_s = self._accepted_s
        self.device.put(taken)

    def _has_no_key(self, taken: TakenFrame, error: WireError) -> None:
        self.publisher.conclude([], [(taken, Failed("key", error))])

    # The end of each record

    def _recorded(self, taken: TakenFrame) -> None:
        self._metrics.classified.inc()
        self._finish(taken)

    def _failed(self, taken: TakenFrame) -> None:
        self._metrics.dead_lettered.inc()
        self._finish(taken)

    def _refused(self, progress: PartitionProgress, offset: int, size: int) -> None:
        self._metrics.dead_lettered.inc()
        progress.finish(offset)
        self.tracker.release(progress, size)
        self._one_less()

    def _finish(self, taken: TakenFrame) -> None:
        taken.progress.finish(taken.offset)
        self._release(taken)
        self._one_less()

    def _release(self, taken: TakenFrame) -> None:
        if taken.counted:
            taken.counted = False
            self.tracker.release(taken.progress, taken.frame_bytes)

    def _one_less(self) -> None:
        self._unfinished -= 1
        if not self._unfinished:
            self._idle.set()

    # Revocation and shutdown

    async def drain(self, seconds: float) -> None:
        """Finish the records in flight, or as many as `seconds` allow; probes that wait for half of that are shed."""
        with self.device.draining():
            # Frames that wait for a key frame are left to the partition's next owner, who may have it.
            self._give_back(self.await_key_frame.discard(lambda _: True))
            timer = asyncio.get_running_loop().call_later(seconds / 2, self.device.shed_waiting)
            try:
                async with asyncio.timeout(seconds):
                    await self._idle.wait()
            except TimeoutError:
                log.info("drain_timed_out", records=self._unfinished)
            finally:
                timer.cancel()

    def _forget(self, gone: set[PartitionProgress]) -> None:
        for waiting in (self.device, self.await_key_frame):
            self._give_back(waiting.discard(lambda taken: taken.progress in gone))

    def _give_back(self, frames: Sequence[TakenFrame]) -> None:
        """Drop frames: Kafka delivers them again."""
        for taken in frames:
            self._release(taken)
            self._one_less()

    def observe(self) -> None:
        """Update the gauges, and fail the frames that have waited too long for their key frame."""
        self.await_key_frame.poll(time.monotonic())
        self.device.observe()
        self._metrics.lag.set(self.tracker.lag())
        self._metrics.paused.set(self.tracker.held - len(self.tracker.open_partitions()))
