"""The role `process`: Kafka frames in, verdicts out."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any, Final

import structlog
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry

from processors.arrivals.group_member import GroupMember
from processors.arrivals.group_watch import GroupReport, GroupWatch
from processors.arrivals.partitions import PartitionTracker
from processors.arrivals.progress import OffsetRegressionError
from processors.arrivals.views import ViewFeed
from processors.device.candidate import Candidate
from processors.device.loaded_model import LoadedModel
from processors.device.lost_device import DeviceLostError
from processors.metrics import ProcessorMetrics
from processors.models.feed import ModelFeed
from processors.models.swap import ModelLoader, ModelSwap, first_model
from processors.results.delivery import Emitter
from processors.settings import ProcessorSettings
from processors.steps.chain import build_chain
from schemas.errors import RestartRequired, typed_text
from schemas.keys.keys import KeyRing
from schemas.runtime.health import Health
from schemas.transport.backoff import Backoff
from schemas.waiting import cancel, ends_before

_POLL_S: Final = 0.2
_OBSERVE_S: Final = 0.5
_SLOW_SHARE: Final = 0.2
"""Share of `device_timeout_s` from which on the processor is unhealthy."""
_LEAVE_S: Final = 2.0

log = structlog.get_logger()


async def run_processor(
    settings: ProcessorSettings,
    keys: KeyRing,
    *,
    registry: CollectorRegistry,
    health: Health,
    stop: asyncio.Event,
) -> None:
    """Classify the frames topic until `stop` is set, then drain, commit and leave the group.

    Health: `warm` when the bundle is loaded and has run, `kafka` while Kafka answers. `assigned` holds when the group
    has assigned partitions, possibly none. `read` holds while each partition of the frames topic has a reader in the
    group. `decoding` holds unless video frames wait because no decoding process can be started. `device` holds unless
    the device takes too long for its work. Raises BundleError or ConfigError before it joins the group. Waits for an
    unavailable Kafka. Raises RestartRequired when the device is lost or hangs: the frames on it get no result, and
    Kafka delivers them again.
    """
    for condition in ("kafka", "warm", "assigned", "read"):
        health.set(condition, False)
    metrics = ProcessorMetrics(registry)
    feed = ModelFeed(settings.kafka, settings.models_topic, settings.trust, metrics)
    loader = ModelLoader(settings, metrics)
    following = asyncio.create_task(feed.run(), name="model feed")
    lost: BaseException | None = None
    try:
        loaded = await _first_model(feed, loader, stop)
        if loaded is None:
            return
        service = _Service(settings, keys, loaded, feed, loader, metrics, health)
        # Not kept here: a replaced model must leave memory.
        del loaded
        await service.run(stop, following)
    except* DeviceLostError as group:
        lost = group
    finally:
        await cancel(following)
        loader.close()
    while isinstance(lost, BaseExceptionGroup):
        lost = lost.exceptions[0]
    if lost is not None:
        raise RestartRequired(str(lost)) from lost


async def _first_model(feed: ModelFeed, loader: ModelLoader, stop: asyncio.Event) -> LoadedModel | None:
    """Return the first model; None if `stop` is set before it has loaded."""
    loading = asyncio.create_task(first_model(feed, loader), name="first model")
    return loading.result() if await ends_before(loading, stop) else None


class _Service:
    """The tasks of the role, and their shutdown."""

    def __init__(
        self,
        settings: ProcessorSettings,
        keys: KeyRing,
        loaded: LoadedModel,
        feed: ModelFeed,
        loader: ModelLoader,
        metrics: ProcessorMetrics,
        health: Health,
    ) -> None:
        self._settings = settings
        self._health = health
        self._metrics = metrics
        self._kafka = {"consumer": False, "producer": False}
        self._emitter = Emitter(settings.kafka, lambda ok, detail: self._on_kafka("producer", ok, detail))
        self._tracker = PartitionTracker(settings)
        self._chain = build_chain(settings, keys, loaded, self._tracker, self._emitter, metrics)
        key_frames = self._chain.await_key_frame
        self._member = GroupMember(settings, self._tracker, self._chain, key_frames, metrics, health)
        self._watch = GroupWatch(settings, self._on_group_report)
        classify = self._chain.classify
        self._views = ViewFeed(
            settings.kafka, settings.views_topic, keys, classify.previews.view, classify.requests.request
        )
        self._unread: str | None = None
        self._rejoin = False
        self._swap = ModelSwap(
            settings, feed, loader, loaded, self._switch, self._switch_candidate, self._emitter, metrics, health
        )

    def _switch(self, loaded: LoadedModel) -> None:
        self._chain.classify.loaded = loaded
        self._chain.device.expect_probe(loaded.probe_s or 0.0)

    def _switch_candidate(self, candidate: Candidate | None) -> None:
        if candidate is None or candidate.model is not getattr(self._chain.classify.candidate, "model", None):
            self._chain.compare.clear()
        self._chain.classify.candidate = candidate

    def _on_kafka(self, side: str, ok: bool, detail: str = "") -> None:
        if self._kafka[side] != ok or not ok:
            self._kafka[side] = ok
            self._health.set("kafka", all(self._kafka.values()), detail)

    async def run(self, stop: asyncio.Event, following: asyncio.Task[None]) -> None:
        """Run until `stop` is set or a task fails. `following` is the task that reads published models."""
        read = asyncio.create_task(self._read_for_ever(), name="read")
        commit = asyncio.create_task(self._commit_for_ever(), name="commit")
        others = [
            asyncio.create_task(self._chain.device.run(), name="device"),
            asyncio.create_task(self._chain.await_key_frame.recall.run(), name="key frame recall"),
            asyncio.create_task(self._observe_for_ever(), name="observe"),
            asyncio.create_task(self._watch.run(), name="group watch"),
            asyncio.create_task(self._swap.run(), name="model swap"),
            asyncio.create_task(self._views.run(), name="views"),
            following,
        ]
        stopped = asyncio.create_task(stop.wait(), name="stop")
        end_s = 0.0
        try:
            ends: list[asyncio.Future[Any]] = [read, commit, *others, stopped, self._emitter.broken]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in (read, commit, *others):
                if task.done():
                    task.result()
            if self._emitter.broken.done():
                self._emitter.broken.result()
            end_s = time.monotonic() + self._settings.drain_s
            await cancel(read, commit)
            await self._chain.drain(self._settings.drain_s * 0.75)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(end_s):
                    await self._member.commit()
        finally:
            await cancel(read, commit, *others, stopped)
            await self._chain.close()
            left_s = max(0.5, end_s - time.monotonic())
            await asyncio.gather(self._member.leave(left_s, keeps_place=False), self._swap.close(left_s / 2))
            await self._emitter.close(max(0.5, end_s - time.monotonic()))

    async def _read_for_ever(self) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._emitter.connect()
                self._on_kafka("producer", True)
                # No frame is classified by a model that is not live any more.
                await self._swap.settled.wait()
                await self._member.join()
                self._on_kafka("consumer", True)
                backoff.reset()
                await self._read()
                # The group returns a static member's previous partitions, possibly none, until the membership expires.
                await self._member.leave(_LEAVE_S)
                await asyncio.sleep(self._settings.session_timeout_s + _LEAVE_S)
            except (KafkaError, OSError) as error:
                complaint = typed_text(error)
                self._on_kafka("consumer", False, complaint)
                log.warning("kafka_unavailable", error=complaint, attempt=backoff.failures)
                await self._member.leave(_LEAVE_S)
                await backoff.wait()
            except OffsetRegressionError as error:
                log.warning("group_rejoined", error=str(error))
                await self._member.leave(_LEAVE_S)

    async def _read(self) -> None:
        """Read records until a partition has had no reader for too long."""
        tracker = self._tracker
        self._rejoin = False
        while not self._rejoin:
            partitions = tracker.open_partitions()
            if not partitions and tracker.held:
                tracker.room.clear()
                await tracker.room.wait()
                continue
            most = tracker.fetch_limit()
            fetched = await self._member.reader.fetch(*partitions, wait_s=_POLL_S, most=most)
            records = self._member.ready(fetched)
            if fetched and not records:
                await asyncio.sleep(_POLL_S)
            count = self._chain.accept(records)
            # Each fetch would return a frame or two at the price of a request: if frames wait anyway, collect more
            # first.
            if 0 < count < most and (linger_s := self._chain.classify.linger_s):
                await asyncio.sleep(linger_s / 2)

    async def _commit_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.commit_interval_s)
            await self._member.commit()

    async def _observe_for_ever(self) -> None:
        while True:
            self._chain.poll(time.monotonic())
            self._swap.poll()
            failure = self._chain.decode.start_failure
            self._health.set("decoding", not failure, failure)
            self._observe_device()
            self._metrics.lag.set(self._member.lag())
            self._metrics.paused.set(self._tracker.held - len(self._tracker.open_partitions()))
            await asyncio.sleep(_OBSERVE_S)

    def _observe_device(self) -> None:
        """Set the device's health. Raises RestartRequired if it hangs: its thread cannot be ended."""
        longest_s = self._settings.device_timeout_s
        worked_s = self._chain.device.observe(time.monotonic())
        slow = worked_s > _SLOW_SHARE * longest_s
        self._health.set("device", not slow, f"no result of its work after {worked_s:.0f} s" if slow else "")
        if worked_s > longest_s:
            raise RestartRequired(
                f"device: expected a result of its work within {longest_s:g} s, got none. Start the processor again; "
                "raise device_timeout_s if the device is only slow."
            )

    # Reports of the group watch: an idle consumer does not notice that Kafka, its topic or its group has gone

    def _on_group_report(self, report: GroupReport) -> None:
        self._tracker.lost |= report.topic_lost
        self._rejoin |= report.rejoin
        if self._member.joined:
            self._on_kafka("consumer", not report.error, report.error)
        if report.unread is not None:
            self._on_unread(report.unread)

    def _on_unread(self, reason: str) -> None:
        if self._unread != reason:
            # At the start nobody reads yet.
            write = log.info if self._unread is None or not reason else log.warning
            write("frame_reading_stopped" if reason else "frame_reading_resumed", reason=reason)
            self._unread = reason
        self._health.set("read", not reason, reason)
        self._metrics.unread.set(bool(reason))
        if not reason and self._member.settle_loss():
            self._rejoin = True
