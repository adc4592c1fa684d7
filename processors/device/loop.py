"""The device's queues and turns: batches of frames, and probes for STRIP.

One piece of work at a time runs on the thread of the live model; its results are handled while the next piece runs.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TypeVar

from processors.arrivals.frames import TakenFrame
from processors.device.batch_executor import Failed, Found, Outcome, most_pixels
from processors.device.loaded_model import LoadedModel
from processors.device.microbatch import MicroBatcher
from processors.device.previews import Wanted
from processors.device.probes import Probe, StripFinding
from processors.device.scheduler import DeviceScheduler
from processors.device.strip_queue import StripQueue
from processors.metrics import ProcessorMetrics
from processors.settings import ProcessorSettings
from schemas.pixels.packing import Picture
from schemas.runtime import trace
from schemas.runtime.linger import Linger

R = TypeVar("R")


@dataclass(slots=True, eq=False)
class Classification:
    """A classified frame, until its verdict is written."""

    taken: TakenFrame
    loaded: LoadedModel
    class_id: int
    confidence: float
    shown: Picture | None
    probe: Probe | None
    finding: StripFinding | None = None
    as_sent: Picture | None = None
    changed: float | None = None

    @property
    def held_bytes(self) -> int:
        """Memory in bytes that it keeps while it waits for STRIP."""
        shown = sum(picture.nbytes for picture in (self.shown, self.as_sent) if picture is not None)
        probe = self.probe.nbytes if self.probe is not None else 0
        return self.taken.frame_bytes + shown + probe


Conclude = Callable[[Sequence[Classification], Sequence[tuple[TakenFrame, Failed]]], None]
"""A function that receives the frames with complete verdicts, and the frames that a stage cannot process."""


class DeviceLoop:
    """Gives the device one piece of work after the other. All methods run on the event loop's thread."""

    def __init__(
        self,
        settings: ProcessorSettings,
        loaded: LoadedModel,
        scheduler: DeviceScheduler,
        metrics: ProcessorMetrics,
        *,
        wanted: Callable[[TakenFrame, float], Wanted],
        conclude: Conclude,
        waits: Callable[[TakenFrame], None],
        over_quota: Callable[[Sequence[TakenFrame]], None],
    ) -> None:
        """`wanted` returns the pictures of a frame to show to people, at a monotonic time.

        Each frame that was `put` goes to `conclude` or to `over_quota` unless it is discarded. `waits` is called for
        each frame that waits for STRIP.
        """
        self._settings = settings
        self._loaded = loaded
        self._scheduler = scheduler
        self._metrics = metrics
        self._wanted = wanted
        self._conclude = conclude
        self._waits = waits
        self._over_quota = over_quota
        self._batcher: MicroBatcher[TakenFrame] = MicroBatcher(
            settings.batch_frames, most_pixels(settings), settings.linger_s
        )
        # Only the device time of batches counts: STRIP's work does not shrink if frames wait for each other.
        self._linger = Linger(settings.linger_s)
        self._probes: StripQueue[Classification] = StripQueue(settings.strip_queue, settings.strip_queue_bytes)
        self._wake = asyncio.Event()
        self._drains = 0

    def put(self, taken: TakenFrame) -> None:
        """Queue a frame for a batch."""
        self._batcher.put(taken)
        self._wake.set()

    @property
    def linger_s(self) -> float:
        """Return the linger of a frame at this time, in seconds: zero while the device is idle."""
        return self._linger.seconds(time.monotonic())

    def refuse_over_quota(self) -> None:
        """Pass cameras' frames beyond their quota to `over_quota`."""
        self._over_quota(self._batcher.over_quota(self._settings.camera_queue_s))

    @contextmanager
    def draining(self) -> Iterator[None]:
        """Within the context, no frame waits for others."""
        self._drains += 1
        self._wake.set()
        try:
            yield
        finally:
            self._drains -= 1

    def discard(self, unwanted: Callable[[TakenFrame], bool]) -> list[TakenFrame]:
        """Remove and return the waiting frames for which `unwanted` is true."""
        probes = self._probes.discard(lambda probe: unwanted(probe.taken))
        return self._batcher.discard(unwanted) + [probe.taken for probe in probes]

    def shed_waiting(self) -> None:
        """Release waiting probes without STRIP."""
        self._conclude([self._shed(probe) for probe in self._probes.take(len(self._probes))], [])

    def switch(self, loaded: LoadedModel) -> None:
        """Classify with another model from the next batch on.

        STRIP checks earlier frames with their own model's network, overlays and threshold.
        """
        self._loaded = loaded

    def observe(self) -> None:
        """Update the gauges."""
        self._metrics.batch_queue.set(len(self._batcher))
        self._metrics.strip_queue.set(len(self._probes))

    # Turns of the device

    async def run(self) -> None:
        """Give the device one piece of work after the other until cancelled, and handle results while the next one
        runs.
        """
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
        self._batcher.linger_s = self.linger_s
        due_s = self._batcher.due_s()
        batch_ready = due_s is not None and due_s <= now_s
        if self._scheduler.strip_is_next(batch_ready, len(self._probes) > 0):
            probes = self._probes.take(self._scheduler.probes_in_turn())
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

    async def _on_device(self, loaded: LoadedModel, function: Callable[[], R]) -> tuple[R, float]:
        def timed() -> tuple[R, float]:
            start = time.perf_counter()
            result = function()
            return result, time.perf_counter() - start

        result, seconds = await asyncio.get_running_loop().run_in_executor(loaded.device, timed)
        self._metrics.device_busy.inc(seconds)
        return result, seconds

    async def _classify(self, batch: list[TakenFrame]) -> Callable[[], None]:
        loaded = self._loaded
        now_s = time.monotonic()
        previews = [self._wanted(taken, now_s) for taken in batch]
        self._metrics.batch.observe(len(batch))
        if trace.on():
            trace.stamp("device", *(taken.identity for taken in batch))
        self._linger.begin(now_s)
        try:
            outcomes, seconds = await self._on_device(loaded, partial(loaded.executor.classify, batch, previews))
        finally:
            self._linger.end(time.monotonic())
        if trace.on():
            trace.stamp("classified", *(taken.identity for taken in batch))
        self._scheduler.classified(seconds, len(self._probes) > 0)
        self._batcher.took(batch, seconds)
        self.refuse_over_quota()
        return partial(self._classified, loaded, batch, outcomes)

    async def _strip(self, probes: list[Classification]) -> Callable[[], None]:
        findings: list[StripFinding | Failed] = []
        total_s = 0.0
        for loaded, group in groupby(probes, lambda probe: probe.loaded):
            inputs = [probe.probe for probe in group if probe.probe is not None]
            some, seconds = await self._on_device(loaded, partial(loaded.executor.strip, inputs))
            findings += some
            total_s += seconds
        self._scheduler.stripped(total_s, len(probes))
        return partial(self._stripped, probes, findings)

    # Results

    def _classified(self, loaded: LoadedModel, batch: Sequence[TakenFrame], outcomes: Sequence[Outcome]) -> None:
        ready: list[Classification] = []
        failed: list[tuple[TakenFrame, Failed]] = []
        for taken, outcome in zip(batch, outcomes, strict=True):
            if not isinstance(outcome, Found):
                failed.append((taken, outcome))
                continue
            found = Classification(
                taken, loaded, outcome.class_id, outcome.confidence, outcome.shown, outcome.probe,
                as_sent=outcome.as_sent, changed=outcome.changed,
            )  # fmt: skip
            if found.probe is None:
                ready.append(found)
            elif self._probes.offer(found):
                # It waits under that queue's bound, and no longer counts for its partition.
                self._waits(taken)
            else:
                ready.append(self._shed(found))
        self._conclude(ready, failed)

    def _stripped(self, probes: Sequence[Classification], findings: Sequence[StripFinding | Failed]) -> None:
        ready: list[Classification] = []
        failed: list[tuple[TakenFrame, Failed]] = []
        for probe, finding in zip(probes, findings, strict=True):
            if isinstance(finding, Failed):
                failed.append((probe.taken, finding))
                continue
            probe.finding = finding
            if trace.on():
                trace.stamp("checked", probe.taken.identity)
            if finding.entropy_bits is not None:
                self._metrics.strip_checked(finding.entropy_bits, finding.passes, flagged=finding.flagged)
            ready.append(probe)
        self._conclude(ready, failed)

    def _shed(self, found: Classification) -> Classification:
        found.finding = StripFinding(None, found.loaded.executor.strip_threshold_bits)
        self._metrics.strip_shed.inc()
        return found
