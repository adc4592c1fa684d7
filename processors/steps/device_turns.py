"""The turns of the device: batches of `Classify`, probes of `Strip`, certificates and comparisons of `Compare`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import structlog

from processors.arrivals.job import FrameJob
from processors.device.scheduler import DeviceScheduler
from processors.metrics import ProcessorMetrics
from processors.steps.certify import Certify
from processors.steps.classify import Classify
from processors.steps.compare import Compare
from processors.steps.strip import Strip
from schemas.errors import error_text

_LONGEST_STEP_S: Final = 5.0
"""Seconds between two observations that count at most: the machine may have been paused."""

log = structlog.get_logger()


class DeviceTurns:
    """Gives the device one piece of work after the other, on the thread of the model that the work is for.

    All methods run on the event loop's thread. The next piece is chosen before the results of one are handled.
    """

    def __init__(
        self,
        classify: Classify,
        strip: Strip,
        certify: Certify,
        compare: Compare,
        scheduler: DeviceScheduler,
        metrics: ProcessorMetrics,
    ) -> None:
        self._classify = classify
        self._strip = strip
        self._certify = certify
        self._compare = compare
        self._scheduler = scheduler
        self._metrics = metrics
        self._drains = 0
        self._certified_last = False
        self._observed_s = 0.0
        self._worked_s: float | None = None

    def observe(self, now_s: float) -> float:
        """Return for how many seconds the work in progress has been observed, with this call; 0 while the device is
        idle.

        `now_s` is the monotonic time. The work of a device that hangs does not end.
        """
        elapsed_s, self._observed_s = now_s - self._observed_s, now_s
        if self._worked_s is None:
            return 0.0
        self._worked_s += min(elapsed_s, _LONGEST_STEP_S)
        return self._worked_s

    def expect_probe(self, probe_s: float) -> None:
        """Take `probe_s` as the seconds of one probe, until probes are measured: another model serves from now on."""
        self._scheduler.expect_probe(probe_s)

    @contextmanager
    def draining(self) -> Iterator[None]:
        """Within the context, neither certificates nor comparisons are made."""
        self._drains += 1
        try:
            yield
        finally:
            self._drains -= 1

    async def run(self) -> None:
        """Work until cancelled."""
        previous: Callable[[], None] | None = None
        while True:
            work = self._next_work()
            if previous is not None:
                previous()
                previous = None
                if work is None:
                    continue
            if work is None:
                await self._wait_for_work()
            else:
                self._worked_s = 0.0
                previous = await work
                self._worked_s = None

    def _next_work(self) -> Coroutine[None, None, Callable[[], None]] | None:
        """Take the next piece of work; its result is the call that passes the jobs on."""
        now_s = time.monotonic()
        due_s = self._classify.due_s()
        batch_ready = due_s is not None and due_s <= now_s
        other_work = batch_ready or len(self._strip) > 0
        if not self._drains and self._scheduler.comparison_is_next(
            other_work, len(self._compare) > 0 or len(self._certify) > 0
        ):
            # The two share their time: they take turns while both wait.
            self._certified_last = len(self._certify) > 0 and not (self._certified_last and len(self._compare) > 0)
            return self._run_certificate(other_work) if self._certified_last else self._run_comparison(other_work)
        if self._scheduler.strip_is_next(batch_ready, len(self._strip) > 0):
            probes = self._strip.next_batch(self._scheduler.probes_in_turn())
            return self._run_strip(probes)
        if batch_ready:
            return self._run_batch(self._classify.next_batch(now_s))
        return None

    async def _run_batch(self, batch: Sequence[FrameJob]) -> Callable[[], None]:
        seconds = await self._classify.run(batch)
        self._metrics.device_busy.inc(seconds)
        self._scheduler.charge_classification(seconds, len(self._strip) > 0)
        return partial(self._classify.pass_on, batch)

    async def _run_strip(self, probes: Sequence[FrameJob]) -> Callable[[], None]:
        seconds = await self._strip.run(probes)
        self._metrics.device_busy.inc(seconds)
        self._scheduler.charge_strip(seconds, len(probes), self._waited_s(seconds))
        return partial(self._strip.pass_on, probes)

    async def _run_comparison(self, other_work: bool) -> Callable[[], None]:
        try:
            seconds = await self._compare.run(self._compare.next_job())
        except (Exception, SystemExit) as error:  # a candidate's code may raise anything, and no frame needs it
            log.error("comparison_failed", error=error_text(error))
            self._metrics.comparisons["dropped"].inc()
            return lambda: None
        self._metrics.device_busy.inc(seconds)
        self._scheduler.charge_comparison(seconds if other_work else self._waited_s(seconds))
        return lambda: None  # the job of a comparison has been passed on before

    async def _run_certificate(self, other_work: bool) -> Callable[[], None]:
        seconds = await self._certify.run()
        self._metrics.device_busy.inc(seconds)
        self._scheduler.charge_comparison(seconds if other_work else self._waited_s(seconds))
        return self._certify.pass_on

    def _waited_s(self, seconds: float) -> float:
        """Return for how long of the last `seconds` a batch has been ready."""
        due_s = self._classify.due_s()
        return 0.0 if due_s is None else min(seconds, max(0.0, time.monotonic() - due_s))

    async def _wait_for_work(self) -> None:
        arrived = self._classify.arrived
        arrived.clear()
        due_s = self._classify.due_s()
        timer = None
        if due_s is not None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(max(0.0, due_s - time.monotonic()), arrived.set)
        begun_s = time.monotonic()
        await arrived.wait()
        self._scheduler.credit_comparison(time.monotonic() - begun_s)
        if timer is not None:
            timer.cancel()
