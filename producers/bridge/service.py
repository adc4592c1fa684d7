"""The bridge as a role: MQTT in, Kafka out, acknowledgements and confirmations back."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from producers.bridge.confirmations import Confirmations, Receipt, refusal_of
from producers.bridge.credit import Credit
from producers.bridge.kafka.backlog import Backlog
from producers.bridge.kafka.lanes import Entry, Lane, Lanes, size_of
from producers.bridge.kafka.unprocessed_frames import UnprocessedFrames
from producers.bridge.mqtt.acknowledgements import AckWindow, Ticket
from producers.bridge.mqtt.broker_log import LOG_TOPIC
from producers.bridge.mqtt.link import Link
from producers.bridge.mqtt.packets import pubacks, publish_qos_0
from producers.bridge.quota import Quota
from producers.bridge.rates import read_rates
from producers.bridge.records import Record, RecordFactory, stamp_records
from producers.bridge.rejections import Rejections
from producers.bridge.requests.forwarder import key_requests, probe_requests, refusals
from producers.bridge.requests.listener import Requests
from producers.bridge.settings import BridgeSettings
from schemas import metrics
from schemas.errors import RevokedKeyError
from schemas.identity import Identity
from schemas.keys.keys import KeyRing
from schemas.pointillist_pb2 import DeadLetter, KeyRequest, ProbeRequest, Refusal
from schemas.runtime import trace
from schemas.runtime.followed_file import FollowedFile
from schemas.runtime.health import Health
from schemas.runtime.linger import Linger
from schemas.topics import KafkaTopic
from schemas.transport.kafka.producers import CLOSE_S
from schemas.transport.kafka.sender import Sender

log = structlog.get_logger()

STALL_S: Final = 3.0
"""Seconds without an acknowledgement after which Kafka counts as unreachable."""


async def run_bridge(
    settings: BridgeSettings,
    keys: KeyRing,
    *,
    registry: CollectorRegistry,
    health: Health,
    stop: asyncio.Event,
) -> None:
    """Forward until `stop` is set, then flush, acknowledge, confirm and disconnect within `settings.shutdown_s`.

    Waits for unavailable brokers. Conditions in `health`: `mqtt` (subscribed), `kafka` (acknowledges), and once
    it could not be read, the processors' `lag`.
    """
    await Bridge(settings, keys, registry, health).run(stop)


class Bridge:
    """One bridge. All work runs on the event loop's thread, and no state must survive a restart."""

    def __init__(self, settings: BridgeSettings, keys: KeyRing, registry: CollectorRegistry, health: Health) -> None:
        self._settings = settings
        self._health = health
        self._keys = keys
        self._records = RecordFactory(settings.name, keys)
        self._window = AckWindow()
        self._quota = Quota(settings.camera_messages_per_s, settings.camera_bytes_per_s, settings.camera_window_bytes)
        file = settings.camera_rates
        self._rates = None if file is None else FollowedFile(file, read_rates)
        self._unprocessed = UnprocessedFrames()
        self._settled: list[Ticket] = []
        self._confirmations = Confirmations(keys)
        self._link = Link(settings, self._receive, self._window.open, health, lambda: self._lanes.is_lingering)
        health.set("kafka", False, "not connected yet")
        self._sender = Sender(
            settings.kafka,
            name=settings.name,
            deadline_s=settings.delivery_deadline_s,
            on_health=lambda ok, detail: health.set("kafka", ok, detail),
            on_failure=metrics.BRIDGE_KAFKA_ERRORS.on(registry).inc,
        )
        self._lanes = Lanes(
            self._sender,
            Linger(settings.linger_ms / 1000, adapts=settings.linger_adapts),
            settings.batch_bytes,
            delivered=self._delivered,
            refused=self._records.refused_by_kafka,
            before_flush=self._link.read_gathered,
        )
        self._backlog = Backlog(
            settings.kafka,
            settings.name,
            settings.processors_group,
            settings.max_backlog_bytes,
            settings.backlog_interval_s,
            self._link.hold_frames,
            self._advance,
            lambda: len(self._credit) > 0,
            self._unprocessed.mean,
            self._drop,
            lambda ok, detail: health.set("lag", ok, detail),
            self._link.hold_events,
        )
        self._credit = Credit(settings.credit_frames, settings.credit_bytes, self._confirmations.add)
        self._stalled = False
        self._draining = False
        # Counted here and moved to the metrics at intervals: locking a metric for each message would cost as much as
        # its handling in the window.
        self._counts: Counter[tuple[str, str]] = Counter()
        self._waiting_letters = 0
        """Dead letters on their way to Kafka."""
        self._bytes = 0
        self._messages_total = metrics.BRIDGE_MESSAGES.on(registry)
        self._bytes_total = metrics.BRIDGE_BYTES.on(registry)
        self._unacknowledged = metrics.BRIDGE_UNACKNOWLEDGED.on(registry)
        self._kafka_seconds = metrics.BRIDGE_KAFKA.on(registry)
        self._confirmations_total = metrics.BRIDGE_CONFIRMATIONS.on(registry)
        self._backlog_bytes = metrics.BRIDGE_BACKLOG.on(registry)
        self._holding = metrics.BRIDGE_BACKPRESSURE.on(registry)
        self._refused_requests_total = metrics.BRIDGE_REFUSED_REQUESTS.on(registry)
        for request in (KeyRequest, ProbeRequest, Refusal):  # from 0 on, so that the first one is an increase
            self._refused_requests_total.labels(request.__name__)
        self._held_back = metrics.BRIDGE_THROTTLED.on(registry)
        self._rejections = Rejections(registry)
        send_key_request = partial(self._send_request, count=metrics.BRIDGE_KEY_REQUESTS.on(registry).inc)
        # Retained for a camera that is offline.
        count_probe_request = metrics.BRIDGE_PROBE_REQUESTS.on(registry).inc
        send_probe_request = partial(self._send_request, retain=True, count=count_probe_request)
        forwarders = (
            key_requests(keys, send_key_request, self._refused_request).forward,
            probe_requests(keys, send_probe_request, self._refused_request).forward,
            refusals(keys, self._send_request, self._refused_request).forward,
        )
        self._requests = Requests(settings.kafka, settings.name, forwarders)

    async def run(self, stop: asyncio.Event) -> None:
        """Forward until `stop` is set."""
        try:
            await self._forward(stop)
        finally:
            await self._sender.close(CLOSE_S)

    async def _forward(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            parts = (
                self._lanes.run(),
                self._connect(),
                self._watch_backlog(),
                self._pass_requests(),
                self._report(),
            )
            tasks = [group.create_task(part) for part in parts]
            await stop.wait()
            try:
                async with asyncio.timeout(self._settings.shutdown_s):
                    await self._drain()
            except TimeoutError:
                log.warning("stopped_with_unacknowledged_records", unacknowledged=len(self._window))
            for task in tasks:
                task.cancel()

    async def _connect(self) -> None:
        # Kafka comes first: a member of the shared subscription that cannot deliver would delay its messages.
        await self._lanes.ready.wait()
        await self._link.run()

    async def _watch_backlog(self) -> None:
        await self._lanes.ready.wait()
        await self._backlog.run(self._lanes.partitions(KafkaTopic.FRAMES))

    async def _pass_requests(self) -> None:
        await self._lanes.ready.wait()
        await self._requests.run()

    def _send_request(
        self, topic: str, payload: bytes, *, retain: bool = False, count: Callable[[], None] = lambda: None
    ) -> None:
        # A request that cannot be written now is dropped: the server repeats it.
        if self._link.writable:
            self._link.send(publish_qos_0(topic, payload, retain=retain))
            count()

    def _refused_request(self, kind: str) -> None:
        self._refused_requests_total.labels(kind).inc()

    def _receive(self, topic: bytes, packet_id: int, payload: bytes, retained: bool) -> None:
        if topic.startswith(LOG_TOPIC):
            self._rejections.record_broker_line(topic, payload)
            return
        ticket = self._window.receive(packet_id) if packet_id else None
        if not self._quota.accepts(topic, len(payload), time.monotonic()):
            self._acknowledge_rejected(ticket)
            return
        record = self._records.accept(topic, payload)
        if retained and record.reason == RevokedKeyError.reason:
            # The broker repeats it at each connection, long after a revoked camera is gone.
            self._acknowledge_rejected(ticket)
            return
        receipt = record.receipt
        if receipt is not None and not self._accepts(receipt):
            trace.leave("bridge", Identity(receipt.camera_id, receipt.boot_id, receipt.seq))
            self._acknowledge_rejected(ticket)
            return
        if record.topic is KafkaTopic.DEAD_LETTERS:
            if not self._backlog.accepts_letters(self._waiting_letters):
                self._counts[record.channel, "dropped"] += 1
                self._acknowledge_rejected(ticket)
                return
            self._waiting_letters += 1
        self._bytes += len(payload)
        if trace.on():
            stamp_records("received", [record])
        self._lanes.put(record, ticket)
        if self._lanes.buffered_bytes >= self._settings.max_buffered_bytes and not self._link.is_paused:
            self._link.pause()

    def _accepts(self, receipt: Receipt) -> bool:
        """Return whether the frame is new, and the camera within its limits on unprocessed bytes and on boots."""
        camera_id = receipt.camera_id
        if receipt in self._unprocessed:
            # A resend of a frame that waits in Kafka. Its confirmation waits too, or was lost on its way.
            if receipt not in self._credit:
                self._confirmations.add(receipt)
            return False
        if receipt.seq >= 0 and self._unprocessed.bytes_of(camera_id) > self._settings.camera_backlog_bytes:
            self._quota.count_rejected(camera_id)
            return False
        return self._quota.accepts_boot(camera_id, receipt.boot_id, time.monotonic())

    def _acknowledge_rejected(self, ticket: Ticket | None) -> None:
        """Acknowledge a rejected message, so that the broker continues. The camera keeps the frame, which is not
        confirmed."""
        if ticket is not None:
            self._settle([ticket])

    def _settle(self, tickets: list[Ticket]) -> None:
        if not self._settled:
            # One write for all acknowledgements of a read, or of a response from Kafka, costs less than one for each.
            asyncio.get_running_loop().call_soon(self._acknowledge)
        self._settled += tickets

    def _acknowledge(self) -> None:
        settled, self._settled = self._settled, []
        released = self._window.settle(settled)
        if released:
            self._link.send(pubacks(released))

    def _delivered(self, lane: Lane, entries: list[Entry], offset: int, size: int, seconds: float) -> None:
        if trace.on():
            stamp_records("stored", [record for record, _ in entries])
        outcome = "dead_lettered" if lane.topic is KafkaTopic.DEAD_LETTERS else "forwarded"
        self._counts.update((record.channel, outcome) for record, _ in entries)
        self._settle([ticket for _, ticket in entries if ticket is not None])
        receipts = (record.receipt for record, _ in entries)
        if lane.topic is KafkaTopic.FRAMES:
            self._backlog.sizes.add(lane.partition, len(entries), size)
            self._backlog.deliver(lane.partition, offset, len(entries))
            self._credit.add(lane.partition, offset, receipts)
            self._unprocessed.add(lane.partition, offset, ((record.receipt, size_of(record)) for record, _ in entries))
        else:
            self._backlog.deliver_unrecorded(lane.topic, lane.partition, offset + len(entries), len(entries), size)
            if lane.topic is KafkaTopic.DEAD_LETTERS:
                self._waiting_letters = max(0, self._waiting_letters - len(entries))
                for record, _ in entries:
                    self._refuse(record)
            else:
                for receipt in receipts:
                    if receipt is not None:
                        self._confirmations.add(receipt)
        self._kafka_seconds.observe(seconds)
        if (
            self._link.is_paused
            and not self._draining
            and self._lanes.buffered_bytes <= self._settings.max_buffered_bytes // 2
        ):
            self._link.resume()

    def _refuse(self, letter: Record) -> None:
        """Ask the camera to shed a frame that is too large for Kafka. If that cannot be sent now, the frame comes
        again."""
        if letter.receipt is not None:
            refusal = refusal_of(letter.receipt, DeadLetter.FromString(letter.value), self._keys)
            if refusal is not None:
                self._send_request(*refusal)

    def _advance(self, done: Mapping[int, int] | None) -> None:
        if done is None:
            self._unprocessed.clear()
        else:
            self._unprocessed.advance(done)
            self._credit.advance(done, self._backlog.sizes.mean)

    def _drop(self, partition: int, lost: range) -> None:
        self._credit.drop(partition, lost)
        self._unprocessed.drop(partition, lost)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(self._settings.confirm_interval_ms / 1000)
            # If the connection is down or its buffer is full, they are written later, together with newer ones.
            if self._link.writable:
                self._confirm()
            self._publish_metrics()
            if self._rates is not None and (rates := self._rates.changed()) is not None:
                self._quota.set_rates(rates)
            stalled = self._lanes.stalled_s() > STALL_S
            if stalled or self._stalled:
                self._health.set("kafka", not stalled, "no acknowledgement" if stalled else "")
            self._stalled = stalled

    def _confirm(self) -> None:
        now = time.monotonic()
        messages = self._confirmations.drain(lambda camera_id: self._quota.is_over_rate(camera_id, now))
        self._link.send(b"".join(publish_qos_0(topic, payload) for topic, payload in messages))
        self._confirmations_total.inc(len(messages))

    def _publish_metrics(self) -> None:
        for (channel, outcome), count in self._counts.items():
            self._messages_total.labels(channel, outcome).inc(count)
        self._counts.clear()
        self._bytes_total.inc(self._bytes)
        self._bytes = 0
        self._unacknowledged.set(len(self._window))
        self._backlog_bytes.set(self._backlog.bytes)
        self._holding.set(self._backlog.holding)
        self._held_back.set(self._confirmations.held)
        self._rejections.show(self._quota.pop_rejected())

    async def _drain(self) -> None:
        self._draining = True
        self._link.pause()
        await self._lanes.drain()
        self._acknowledge()
        self._confirm()
        self._publish_metrics()
        await self._link.close()
