"""One processor at work: from the partitions through the device to verdicts, and only then to commits."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import TypeVar

import structlog
from aiokafka import ConsumerRecord, TopicPartition

from processors.arrivals.deltas import Deltas
from processors.arrivals.frames import TakenFrame, open_record
from processors.arrivals.key_recall import KeyRecall
from processors.arrivals.partitions import Inbox
from processors.arrivals.progress import PartitionProgress
from processors.device.microbatch import MicroBatcher
from processors.device.serving import Serving
from processors.device.strip_queue import DeviceTurns, StripQueue
from processors.device.work import Failed, Found, Outcome, most_pixels
from processors.metrics import ProcessorMetrics
from processors.results.delivery import Emitter
from processors.results.preview import PreviewClock
from processors.results.records import StripFinding
from processors.results.verdicts import Classification, Outbox
from processors.settings import ProcessorSettings
from schemas.errors import OverQuota, OverSize, WireError
from schemas.frame import is_key_frame
from schemas.keys import KeyRing

R = TypeVar("R")

log = structlog.get_logger()


class Processor:
    """What is in flight, and the two threads that work on it. All methods run on the event loop's thread.

    A record is finished when Kafka holds its verdict or dead letter. What is cancelled before that is delivered again.
    """

    def __init__(
        self,
        settings: ProcessorSettings,
        keys: KeyRing,
        serving: Serving,
        turns: DeviceTurns,
        emitter: Emitter,
        metrics: ProcessorMetrics,
        on_assigned: Callable[[bool], None],
    ) -> None:
        self.outbox = Outbox(settings, emitter, self._recorded, self._failed, lambda: metrics.stage_failed("pictures"))
        self.recall = KeyRecall(settings.kafka, settings.frames_topic, lambda *found: self.deltas.recalled(*found))
        self.deltas = Deltas(
            settings,
            keys,
            metrics,
            ready=self._ready,
            failed=self._has_no_key,
            ask=self.outbox.request_key,
            recall=self.recall.want,
        )
        self.inbox = Inbox(
            settings, self.drain, self._forget, on_assigned, self.deltas.held.note, self.deltas.recall_partition
        )
        self._settings = settings
        self._keys = keys
        self._serving = serving
        self._turns = turns
        self._metrics = metrics
        self._batcher: MicroBatcher[TakenFrame] = MicroBatcher(
            settings.batch_frames, most_pixels(settings), settings.linger_s
        )
        self._probes: StripQueue[Classification] = StripQueue(settings.strip_queue, settings.strip_queue_bytes)
        self._previews = PreviewClock(settings.preview_interval_s)
        self._wake = asyncio.Event()
        self._accepted_s = 0.0
        self._drains = 0
        self._unfinished = 0
        self._idle = asyncio.Event()
        self._idle.set()

    # In: records become frames that wait

    def accept(self, records: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> int:
        """Open what Kafka gave; how many records that were. What is no verified frame goes to the dead letters.

        Raises OffsetsWentBack, having taken nothing, when the log is another one than before.
        """
        self.inbox.check(records)
        now_s = self._accepted_s = time.monotonic()
        opened: list[TakenFrame] = []
        refused: list[tuple[ConsumerRecord, WireError, Callable[[], None]]] = []
        for partition_records in records.values():
            for record in partition_records:
                progress = self.inbox.take(record)
                try:
                    taken = open_record(record, self._keys, progress, now_s)
                except WireError as error:
                    size = len(record.value or b"")
                    refused.append((record, error, partial(self._refused, progress, record.offset, size)))
                    self._metrics.stage_failed("intake")
                else:
                    opened.append(taken)
        count = len(opened) + len(refused)
        if count:
            self._unfinished += count
            self._idle.clear()
            self._wake.set()
            self._metrics.taken([taken for taken in opened if self._admit(taken, now_s)])
            self._refuse_over_quota()
            self._metrics.stage("intake", time.monotonic() - now_s)
        self.outbox.send_repeats()
        self.outbox.refuse(refused)
        return count

    def _admit(self, taken: TakenFrame, now_s: float) -> bool:
        """Whether the frame has a size that is taken; such a frame goes on."""
        most = self._settings.max_frame_pixels
        if taken.shape.pixels > most:
            size = f"{taken.shape.width}x{taken.shape.height}"
            self._refuse_unseen([taken], "intake", OverSize(f"expected at most {most} pixels a frame, got {size}"))
            return False
        repeated = self.outbox.repeat(taken)
        if is_key_frame(taken.frame):
            self.deltas.take_key(taken, repeated)
        if not repeated:
            if taken.frame.key_distance:
                self.deltas.take(taken, now_s)
            else:
                self._batcher.put(taken)
        return True

    def _refuse_over_quota(self) -> None:
        quota_s = self._settings.camera_queue_s
        error = OverQuota(f"expected at most {quota_s:g} s of device time waiting for one camera beside others")
        self._refuse_unseen(self._batcher.over_quota(quota_s), "queue", error)

    def _refuse_unseen(self, frames: Sequence[TakenFrame], stage: str, error: WireError) -> None:
        """Dead letters with the frames' identities: whose tag was valid, the audit must find again."""
        if frames:
            self._metrics.refused[error.reason].inc(len(frames))
            self.outbox.conclude([], [(taken, Failed(stage, error)) for taken in frames])

    def _ready(self, taken: TakenFrame) -> None:
        """A frame has its key frame; if it waited for that, it has not waited for its batch."""
        taken.arrived_s = self._accepted_s
        self._batcher.put(taken)
        self._wake.set()

    def _has_no_key(self, taken: TakenFrame, error: WireError) -> None:
        self.outbox.conclude([], [(taken, Failed("key", error))])

    # On the device: batches and STRIP in turn

    async def run_device(self) -> None:
        """Give the device its next piece of work for ever; what came back is handled while the next one runs."""
        previous: Callable[[], None] | None = None
        while True:
            running = self._next_work()
            if previous is not None:
                previous()
                previous = None
                if running is None:
                    continue
            if running is None:
                await self._wait_for_work()
            else:
                previous = await running

    def _next_work(self) -> asyncio.Task[Callable[[], None]] | None:
        now_s = math.inf if self._drains else time.monotonic()
        due_s = self._batcher.due_s()
        batch_ready = due_s is not None and due_s <= now_s
        if self._turns.strip_is_next(batch_ready, len(self._probes) > 0):
            probes = self._probes.take(self._turns.probes_in_turn())
            return asyncio.create_task(self._strip(probes), name="strip")
        if batch_ready:
            return asyncio.create_task(self._classify(self._batcher.take(now_s)), name="batch")
        return None

    async def _wait_for_work(self) -> None:
        self._wake.clear()
        due_s = self._batcher.due_s()
        timer = None
        if due_s is not None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(max(0.0, due_s - time.monotonic()), self._wake.set)
        await self._wake.wait()
        if timer is not None:
            timer.cancel()

    def switch(self, serving: Serving) -> None:
        """Classify with another model from the next batch on.

        What was classified by the one before is checked by STRIP with that one's network, overlays and threshold.
        """
        self._serving = serving

    async def _on_device(self, serving: Serving, function: Callable[[], R]) -> tuple[R, float]:
        def timed() -> tuple[R, float]:
            start = time.perf_counter()
            result = function()
            return result, time.perf_counter() - start

        result, seconds = await asyncio.get_running_loop().run_in_executor(serving.device, timed)
        self._metrics.device_busy.inc(seconds)
        return result, seconds

    async def _classify(self, batch: list[TakenFrame]) -> Callable[[], None]:
        serving = self._serving
        now_s = time.monotonic()
        previews = [self._previews.due(taken.camera_id, now_s) for taken in batch]
        self._metrics.batch.observe(len(batch))
        outcomes, seconds = await self._on_device(serving, partial(serving.work.classify, batch, previews))
        self._turns.classified(seconds, len(self._probes) > 0)
        self._batcher.took(batch, seconds)
        self._refuse_over_quota()
        return partial(self._classified, serving, batch, outcomes)

    async def _strip(self, probes: list[Classification]) -> Callable[[], None]:
        findings: list[StripFinding | Failed] = []
        total_s = 0.0
        for serving, group in groupby(probes, lambda probe: probe.serving):
            inputs = [probe.probe for probe in group if probe.probe is not None]
            some, seconds = await self._on_device(serving, partial(serving.work.strip, inputs))
            findings += some
            total_s += seconds
        self._turns.stripped(total_s, len(probes))
        return partial(self._stripped, probes, findings)

    # Out: what was found becomes records

    def _classified(self, serving: Serving, batch: Sequence[TakenFrame], outcomes: Sequence[Outcome]) -> None:
        ready: list[Classification] = []
        failed: list[tuple[TakenFrame, Failed]] = []
        for taken, outcome in zip(batch, outcomes, strict=True):
            if not isinstance(outcome, Found):
                failed.append((taken, outcome))
                continue
            found = Classification(taken, serving, outcome.class_id, outcome.confidence, outcome.shown, outcome.probe)
            if found.probe is None:
                ready.append(found)
            elif not taken.frame.whole and 2 * len(self._probes) >= self._settings.strip_queue:
                # The sample of the other frames must not crowd out the probes.
                found.probe = None
                ready.append(found)
            elif self._probes.offer(found):
                # It waits under the bound of that queue, so that its partition need not wait with it.
                self._release(taken)
            else:
                ready.append(self._shed(found))
        self.outbox.conclude(ready, failed)

    def _stripped(self, probes: Sequence[Classification], findings: Sequence[StripFinding | Failed]) -> None:
        ready: list[Classification] = []
        failed: list[tuple[TakenFrame, Failed]] = []
        for probe, finding in zip(probes, findings, strict=True):
            if isinstance(finding, Failed):
                failed.append((probe.taken, finding))
                continue
            probe.finding = finding
            self._metrics.stripped(finding)
            ready.append(probe)
        self.outbox.conclude(ready, failed)

    def _shed(self, found: Classification) -> Classification:
        dropped = found.probe.dropped_per_block if found.probe is not None else 0
        found.finding = StripFinding(None, found.serving.work.strip_threshold_bits(dropped))
        self._metrics.stripped(found.finding)
        return found

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
        self.inbox.release(progress, size)
        self._one_less()

    def _finish(self, taken: TakenFrame) -> None:
        taken.progress.finish(taken.offset)
        self._release(taken)
        self._one_less()

    def _release(self, taken: TakenFrame) -> None:
        if taken.counted:
            taken.counted = False
            self.inbox.release(taken.progress, taken.frame_bytes)

    def _one_less(self) -> None:
        self._unfinished -= 1
        if not self._unfinished:
            self._idle.set()

    # Revocation and shutdown

    async def drain(self, seconds: float) -> None:
        """Finish what is in flight, or as much of it as `seconds` allow; probes that wait for half of that are shed."""
        self._drains += 1
        self._wake.set()
        # What waits for a key frame is left to whoever gets the partition next, and with it perhaps the key frame.
        self._give_back(self.deltas.discard(lambda _: True))
        loop = asyncio.get_running_loop()
        timer = loop.call_later(seconds / 2, self._shed_waiting)
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            log.info("not drained in time: the rest is delivered again", records=self._unfinished)
        finally:
            timer.cancel()
            self._drains -= 1

    def _shed_waiting(self) -> None:
        self.outbox.conclude([self._shed(probe) for probe in self._probes.take(len(self._probes))], [])

    def _forget(self, gone: set[PartitionProgress]) -> None:
        dropped = self._batcher.discard(lambda taken: taken.progress in gone)
        dropped += [p.taken for p in self._probes.discard(lambda probe: probe.taken.progress in gone)]
        self._give_back(dropped + self.deltas.discard(lambda taken: taken.progress in gone))

    def _give_back(self, frames: Sequence[TakenFrame]) -> None:
        """They are delivered again."""
        for taken in frames:
            self._release(taken)
            self._one_less()

    def observe(self) -> None:
        """Bring the gauges up to date, and give up what waited too long for its key frame."""
        self.deltas.tick(time.monotonic())
        self._metrics.batch_queue.set(len(self._batcher))
        self._metrics.strip_queue.set(len(self._probes))
        self._metrics.lag.set(self.inbox.lag())
        self._metrics.paused.set(self.inbox.held - len(self.inbox.open_partitions()))
