"""The turns of the device: batches of `Classify`, probes of `Strip` and comparisons of `Compare`."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import structlog

from processors.arrivals.job import FrameJob
from processors.device.scheduler import DeviceScheduler
from processors.metrics import ProcessorMetrics
from processors.steps.classify import Classify
from processors.steps.compare import Compare
from processors.steps.strip import Strip

log = structlog.get_logger()


class DeviceTurns:
    """Gives the device one piece of work after the other, on the thread of the model that the work is for.

    All methods run on the event loop's thread. The results of one piece are handled while the next runs.
    """

    def __init__(
        self,
        classify: Classify,
        strip: Strip,
        compare: Compare,
        scheduler: DeviceScheduler,
        metrics: ProcessorMetrics,
    ) -> None:
        self._classify = classify
        self._strip = strip
        self._compare = compare
        self._scheduler = scheduler
        self._metrics = metrics
        self._drains = 0

    @contextmanager
    def draining(self) -> Iterator[None]:
        """Within the context, no frame waits for others."""
        self._drains += 1
        self._classify.arrived.set()
        try:
            yield
        finally:
            self._drains -= 1

    async def run(self) -> None:
        """Work until cancelled."""
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
        """Start the next piece of work; its result is the call that passes the jobs on."""
        now_s = math.inf if self._drains else time.monotonic()
        due_s = self._classify.due_s()
        batch_ready = due_s is not None and due_s <= now_s
        if not self._drains and self._scheduler.comparison_is_next(
            batch_ready or len(self._strip) > 0, len(self._compare) > 0
        ):
            return asyncio.create_task(self._run_comparison(), name="comparison")
        if self._scheduler.strip_is_next(batch_ready, len(self._strip) > 0):
            probes = self._strip.take(self._scheduler.probes_in_turn())
            return asyncio.create_task(self._run_strip(probes), name="strip")
        if batch_ready:
            return asyncio.create_task(self._run_batch(self._classify.take(now_s)), name="batch")
        return None

    async def _run_batch(self, batch: Sequence[FrameJob]) -> Callable[[], None]:
        seconds = await self._classify.run(batch)
        self._metrics.device_busy.inc(seconds)
        self._scheduler.classified(seconds, len(self._strip) > 0)
        return partial(self._classify.pass_on, batch)

    async def _run_strip(self, probes: Sequence[FrameJob]) -> Callable[[], None]:
        seconds = await self._strip.run(probes)
        self._metrics.device_busy.inc(seconds)
        self._scheduler.stripped(seconds, len(probes))
        return partial(self._strip.pass_on, probes)

    async def _run_comparison(self) -> Callable[[], None]:
        try:
            seconds = await self._compare.run(self._compare.take())
        except (Exception, SystemExit) as error:  # a candidate's code may raise anything, and no frame needs it
            log.error("comparison_failed", error=str(error)[:200] or type(error).__name__)
            self._metrics.comparisons["dropped"].inc()
            return _nothing
        self._metrics.device_busy.inc(seconds)
        self._scheduler.compared(seconds)
        return _nothing

    async def _wait_for_work(self) -> None:
        arrived = self._classify.arrived
        arrived.clear()
        due_s = self._classify.due_s()
        timer = None
        if due_s is not None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(max(0.0, due_s - time.monotonic()), arrived.set)
        await arrived.wait()
        if timer is not None:
            timer.cancel()


def _nothing() -> None:
    """Do nothing: a comparison passes no job on."""
