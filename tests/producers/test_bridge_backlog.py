"""The bridge's backlog limits: above them frames stay with the cameras, and events still pass."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition

import producers.bridge.kafka.backlog as backlog_module
from infra.local.kafka import Kafka
from infra.local.mosquitto import Mosquitto
from infra.local.topics import create_topics, pointillist_topics
from producers.bridge import BridgeSettings
from producers.bridge.confirmations import Receipt
from producers.bridge.kafka.backlog import MAX_UNRECORDED_BYTES, Backlog
from producers.bridge.kafka.lanes import RECORD_OVERHEAD
from producers.bridge.kafka.unprocessed_frames import UnprocessedFrames
from schemas.identity import CameraId
from schemas.messages.frame import sign_message
from schemas.pointillist_pb2 import ONLINE, Ledger, Status
from schemas.topics import RECORDED_GROUP, Channel, KafkaTopic, mqtt_topic
from schemas.transport.kafka.admin import Admin
from schemas.transport.kafka.record_sizes import RECENT, RecordSizes
from tests.processors.rig import delete_topics
from tests.producers.bridge_rig import BOOT, KEYS, RunningBridge, connected_rig, frame, new_camera
from tests.waiting import until

FRAME_BYTES = len(frame(CameraId("hall/door"), 1)) + RECORD_OVERHEAD


def backlog(limit_bytes: int, changes: list[bool]) -> Backlog:
    return Backlog("nowhere:1", "b1", "processors", limit_bytes, 1.0, changes.append, lambda _: None)


def test_frames_are_held_back_above_the_limit_until_the_lag_is_below_half_of_it() -> None:
    changes: list[bool] = []
    found = backlog(1000, changes)
    found.sizes.add(0, 10, 1000)
    for unprocessed, expected in ((10, False), (11, True), (9, True), (6, True), (5, False), (10, False), (11, True)):
        found.observe({0: unprocessed, 1: 0})
        assert (found.holding, found.bytes) == (expected, 100 * unprocessed)
    assert changes == [True, False, True]


def test_one_full_partition_holds_frames_back_and_each_partition_has_its_own_mean_size() -> None:
    found = backlog(1000, [])
    found.sizes.add(0, 100, 100)
    found.sizes.add(1, 1, 600)
    found.observe({0: 500, 1: 1})
    assert (found.holding, found.bytes) == (False, 600)
    found.observe({0: 500, 1: 2})
    assert found.holding


@pytest.mark.parametrize("sizes", [(10, 1000), (1000, 10)])
def test_the_backlog_is_measured_with_the_sizes_of_unprocessed_records_not_of_recent_ones(
    sizes: tuple[int, int],
) -> None:
    unprocessed = UnprocessedFrames()
    found = Backlog(
        "nowhere:1", "b1", "processors", 10**7, 1.0, lambda _: None, lambda _: None, lambda: True, unprocessed.mean
    )
    for first, size in zip((0, 5 * RECENT), sizes, strict=True):
        found.sizes.add(0, 5 * RECENT, 5 * RECENT * size)
        receipts = (Receipt(CameraId("hall/door"), 7, 0, seq) for seq in range(first, first + 5 * RECENT))
        unprocessed.add(0, first, ((receipt, size) for receipt in receipts))
    found.observe({0: 10 * RECENT})
    assert found.bytes == 5 * RECENT * (10 + 1000)
    unprocessed.advance({0: 5 * RECENT})
    found.observe({0: 5 * RECENT})
    assert found.bytes == 5 * RECENT * sizes[1]
    unprocessed.clear()
    found.observe({0: 1})
    assert found.bytes == round(found.sizes.mean(0))


def test_repeated_offsets_are_reported_as_lost_records() -> None:
    lost: list[tuple[int, range]] = []
    found = Backlog(
        "nowhere:1", "b1", "p", 1, 1.0, lambda _: None, lambda _: None, lost=lambda *found: lost.append(found)
    )
    for partition, first, count in ((0, 0, 8), (1, 3, 2), (0, -1, 4), (0, 8, 2), (0, 5, 1), (0, 6, 3)):
        found.deliver(partition, first, count)
    assert lost == [(0, range(5, 10))]


def test_a_bridge_that_has_sent_no_record_holds_nothing_back() -> None:
    found = backlog(1, [])
    assert (found.bytes, found.holding) == (0, False)
    found.observe({0: 10**9})
    assert (found.bytes, found.holding) == (0, False)


def test_the_mean_size_of_a_partition_defaults_to_the_mean_of_all_and_follows_recent_records() -> None:
    sizes = RecordSizes()
    for records, size in ((1, 100), (3, 700), (4, 0)):
        sizes.add(0, records, size)
    sizes.add(1, 8, 2400)
    assert (sizes.mean(0), sizes.mean(1), sizes.mean(7)) == (100, 300, 200)
    for _ in range(20):
        sizes.add(0, RECENT, RECENT * 5000)
    assert sizes.mean(0) == pytest.approx(5000, rel=0.02)


def test_older_records_weigh_at_most_twice_the_records_of_one_averaging_window() -> None:
    for earlier in (RECENT, 2 * RECENT, 5 * RECENT // 2, 3 * RECENT, 7 * RECENT // 2, 100 * RECENT):
        sizes = RecordSizes()
        sizes.add(0, earlier, earlier * 100)
        sizes.add(0, RECENT // 2, RECENT // 2 * 500)
        assert (2 * 100 + 0.5 * 500) / 2.5 <= sizes.mean(0) < 500
    sizes = RecordSizes()
    for size in (100, 500):
        sizes.add(0, RECENT, RECENT * size)
    assert sizes.mean(0) == 300


@pytest.mark.parametrize(
    ("topic", "limit_bytes"),
    [
        (KafkaTopic.FRAMES, BridgeSettings().max_backlog_bytes),
        (KafkaTopic.VERDICTS, MAX_UNRECORDED_BYTES),
        (KafkaTopic.EVENTS, MAX_UNRECORDED_BYTES),
        (KafkaTopic.DEAD_LETTERS, MAX_UNRECORDED_BYTES),
    ],
)
def test_a_backlog_limit_is_at_most_half_of_the_retention_of_a_partition(topic: KafkaTopic, limit_bytes: int) -> None:
    settings = pointillist_topics()[topic.value].settings()
    # Kafka deletes whole segments.
    kept = int(settings["retention.bytes"]) - int(settings["segment.bytes"])
    assert 2 * limit_bytes <= kept


class Processors:
    """A consumer group that commits everything in Kafka when a test calls `catch_up`."""

    def __init__(self, consumer: AIOKafkaConsumer, group: str) -> None:
        self.group = group
        self._consumer = consumer

    async def catch_up(self) -> None:
        """Commit the end of every partition."""
        await self._consumer.commit(await self._consumer.end_offsets(list(self._consumer.assignment())))


@asynccontextmanager
async def processors(kafka: Kafka) -> AsyncIterator[Processors]:
    group = f"test-{new_camera().replace('/', '-')}"
    async with AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap, group_id=group, enable_auto_commit=False
    ) as consumer:
        await consumer._client._wait_on_metadata(KafkaTopic.FRAMES.value)
        numbers = consumer.partitions_for_topic(KafkaTopic.FRAMES.value)
        consumer.assign([TopicPartition(KafkaTopic.FRAMES.value, number) for number in numbers])
        made = Processors(consumer, group)
        await made.catch_up()
        yield made


def holding(bridge: RunningBridge) -> bool:
    return bridge.metric("pointillist_bridge_backpressure_active") == 1


def backlog_bytes(bridge: RunningBridge) -> float:
    return bridge.metric("pointillist_bridge_backlog_bytes")


def unacknowledged(bridge: RunningBridge) -> float:
    return bridge.metric("pointillist_bridge_unacknowledged_messages")


@pytest.mark.brokers
async def test_new_frames_are_confirmed_after_the_topic_was_deleted_and_created_again(
    mosquitto: Mosquitto, kafka: Kafka
) -> None:
    async with connected_rig(mosquitto, kafka) as rig, processors(kafka) as behind:
        bridge = await rig.start_bridge(processors_group=behind.group, credit_frames=5, backlog_interval_s=0.1)
        camera, frames = new_camera(), KafkaTopic.FRAMES.value
        rig.cameras.frames(camera, range(40))
        await until(lambda: backlog_bytes(bridge) > 0, "the backlog read")
        await behind.catch_up()
        await until(lambda: backlog_bytes(bridge) == 0, "the processors' progress read")
        rig.cameras.frames(camera, range(40, 80))
        await until(lambda: len(rig.cameras.confirmed[camera]) == 45, "five confirmed beyond the progress")
        await delete_topics(kafka.bootstrap, frames)
        await create_topics(kafka.bootstrap, {frames: pointillist_topics()[frames]})
        await rig.cameras.resend(camera, range(80, 100), behind.catch_up)


@pytest.mark.brokers
async def test_frames_stay_with_the_cameras_while_the_processors_lag_and_none_is_lost(
    mosquitto: Mosquitto, kafka: Kafka
) -> None:
    limit = 100 * FRAME_BYTES
    async with connected_rig(mosquitto, kafka) as rig, processors(kafka) as behind:
        options: dict[str, Any] = {
            "processors_group": behind.group,
            "max_backlog_bytes": limit,
            "backlog_interval_s": 0.1,
        }
        bridges = [await rig.start_bridge(**options), await rig.start_bridge(**options)]
        camera, seqs = new_camera(), range(400)
        for first in range(0, 400, 40):
            rig.cameras.frames(camera, seqs[first : first + 40])
            seen = 0.95 * FRAME_BYTES * (first + 40)
            await until(
                lambda seen=seen: all(holding(b) or backlog_bytes(b) > seen for b in bridges), "the backlog read"
            )
        await until(lambda: all(map(holding, bridges)), "both bridges holding frames back")
        await until(lambda: not any(map(unacknowledged, bridges)), "all acknowledged")
        assert max(map(backlog_bytes, bridges)) > limit
        accepted = len(await rig.frames_of(camera))
        assert 100 < accepted < 400
        # The bridge rejects frames and accepts events.
        rig.cameras.frames(camera, range(390, 400))
        ledger = sign_message(KEYS.current(camera), Ledger(boot_id=BOOT, revision=3, next=400))
        rig.cameras.publish(mqtt_topic(camera, Channel.EVENT), ledger)
        await until(lambda: rig.cameras.revisions.get(camera) == 3, "the ledger confirmed")
        assert len(await rig.frames_of(camera)) == accepted
        await until(lambda: all(bridge.is_healthy() for bridge in bridges), "healthy bridges")
        await behind.catch_up()
        await until(lambda: not any(map(holding, bridges)), "both bridges accepting frames")
        await rig.cameras.resend(camera, seqs, behind.catch_up)
        assert set(await rig.frames_of(camera)) == {frame(camera, seq) for seq in seqs}


@pytest.mark.brokers
async def test_frames_stay_with_the_cameras_while_the_recorders_lag_and_none_is_lost(
    mosquitto: Mosquitto, kafka: Kafka
) -> None:
    place, camera = TopicPartition(KafkaTopic.VERDICTS.value, 0), new_camera()
    await create_topics(kafka.bootstrap, pointillist_topics())
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        await producer.send_and_wait(place.topic, b"verdict", partition=0)
        end = (await producer.send_and_wait(place.topic, b"verdict", partition=0)).offset + 1
    # The processors' commit comes first: after it, Kafka has a coordinator for other groups too.
    async with connected_rig(mosquitto, kafka) as rig, processors(kafka) as done, Admin(kafka.bootstrap) as admin:
        await admin.commit(RECORDED_GROUP, {place: (end - 2, str(MAX_UNRECORDED_BYTES // 2 + 1))})
        bridge = await rig.start_bridge(processors_group=done.group, backlog_interval_s=0.02)
        await until(lambda: holding(bridge), "frames held back")
        rig.cameras.frames(camera, range(20))
        ledger = sign_message(KEYS.current(camera), Ledger(boot_id=BOOT, revision=3, next=20))
        rig.cameras.publish(mqtt_topic(camera, Channel.EVENT), ledger)
        await until(lambda: rig.cameras.revisions.get(camera) == 3, "the ledger confirmed")
        assert not await rig.frames_of(camera)
        await admin.commit(RECORDED_GROUP, {place: (end, "1")})
        await until(lambda: not holding(bridge), "frames accepted")
        await rig.cameras.resend(camera, range(20))
        assert set(await rig.frames_of(camera)) == {frame(camera, seq) for seq in range(20)}


@pytest.mark.brokers
async def test_ledgers_and_statuses_stay_with_the_cameras_while_too_many_events_are_unrecorded_and_frames_go_on(
    mosquitto: Mosquitto, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, camera, many = TopicPartition(KafkaTopic.EVENTS.value, 0), new_camera(), 300
    monkeypatch.setattr(backlog_module, "RECORD_BYTES", {place.topic: MAX_UNRECORDED_BYTES // (many - 1)})
    await create_topics(kafka.bootstrap, pointillist_topics())
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        sent = [await producer.send(place.topic, b"event", partition=0) for _ in range(many)]
        end = (await sent[-1]).offset + 1
    async with connected_rig(mosquitto, kafka) as rig, processors(kafka) as done, Admin(kafka.bootstrap) as admin:

        async def events() -> set[bytes]:
            return {record.value for record in (await rig.read())[KafkaTopic.EVENTS] if record.key == camera.encode()}

        async def has_status() -> bool:
            return await events() == {status}

        await admin.commit(RECORDED_GROUP, {place: (end - many, "1")})
        with structlog.testing.capture_logs() as logs:
            await rig.start_bridge(processors_group=done.group, backlog_interval_s=0.02)
            await until(lambda: "backpressure_started" in [entry["event"] for entry in logs], "events held back")
        # The bridge's confirmations follow its packets to the broker: the subscriptions have ended by then.
        rig.cameras.frames(camera, range(10))
        await rig.cameras.all_confirmed(camera, range(10))
        status = sign_message(KEYS.current(camera), Status(state=ONLINE, boot_id=BOOT))
        ledger = sign_message(KEYS.current(camera), Ledger(boot_id=BOOT, revision=3, next=20))
        rig.cameras.publish(mqtt_topic(camera, Channel.STATUS), status, retain=True)
        rig.cameras.publish(mqtt_topic(camera, Channel.EVENT), ledger)
        rig.cameras.frames(camera, range(10, 20))
        await rig.cameras.all_confirmed(camera, range(20))
        assert (await events(), rig.cameras.revisions[camera]) == (set(), 0)
        await admin.commit(RECORDED_GROUP, {place: (end, "1")})
        await until(has_status, "the retained status")
        rig.cameras.publish(mqtt_topic(camera, Channel.EVENT), ledger)
        await until(lambda: rig.cameras.revisions[camera] == 3, "the ledger confirmed")
        assert await events() == {status, ledger}


@pytest.mark.brokers
async def test_a_camera_far_ahead_of_the_processors_delays_no_other_camera_and_loses_nothing(
    mosquitto: Mosquitto, kafka: Kafka
) -> None:
    async with connected_rig(mosquitto, kafka) as rig, processors(kafka) as behind:
        bridge = await rig.start_bridge(
            processors_group=behind.group,
            max_backlog_bytes=200 * FRAME_BYTES,
            camera_backlog_bytes=40 * FRAME_BYTES,
            backlog_interval_s=0.1,
        )
        ahead, calm = new_camera(), new_camera()

        def settled(sent: int) -> bool:
            accepted = bridge.metric("pointillist_bridge_messages_total", channel="frame", outcome="forwarded")
            rejected = bridge.metric("pointillist_bridge_over_quota_messages_total", camera_id=ahead)
            return accepted + rejected >= sent and not unacknowledged(bridge)

        for first in range(0, 400, 40):
            rig.cameras.frames(ahead, range(first, first + 40))
            await until(partial(settled, first + 40), "each frame accepted or rejected")
        await until(
            lambda: bridge.metric("pointillist_bridge_over_quota_messages_total", camera_id=ahead) > 100,
            "rejected frames",
        )
        assert 40 <= len(await rig.frames_of(ahead)) <= 120
        assert not holding(bridge)
        rig.cameras.frames(calm, range(20))
        await rig.cameras.all_confirmed(calm, range(20))
        assert bridge.metric("pointillist_bridge_over_quota_messages_total", camera_id=calm) == 0
        await rig.cameras.resend(ahead, range(400), behind.catch_up)
        assert set(await rig.frames_of(ahead)) == {frame(ahead, seq) for seq in range(400)}
