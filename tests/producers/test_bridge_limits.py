"""The bridge's limits for one camera, the broker's log of rejected clients, and the trace stamps of frames."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry

import producers.bridge.kafka.backlog as backlog_module
from producers.bridge.kafka.backlog import MAX_UNRECORDED_LETTER_BYTES
from producers.bridge.kafka.lanes import RECORD_OVERHEAD
from producers.bridge.rejections import Rejections
from schemas.identity import CameraId
from schemas.messages.frame import Encoding, encode_frame, sign_message
from schemas.metrics import MAX_CAMERA_SERIES
from schemas.pointillist_pb2 import Ledger
from schemas.runtime import trace
from schemas.topics import Channel, KafkaTopic, mqtt_topic
from schemas.transport.kafka.sender import partition_of
from tests.producers.bridge_between import CAMERA, FRAME_BYTES, FRAMES, Running, bridged, frame
from tests.producers.bridge_rig import KEYS, PICTURE
from tests.producers.kafka_stand_in import KafkaStandIn
from tests.waiting import PATIENCE_S, until

LEDGER = sign_message(KEYS.current(CAMERA), Ledger(boot_id=7, revision=4, next=10))
EVENTS = mqtt_topic(CAMERA, Channel.EVENT)
YARD = CameraId("hall/yard")


async def accepted(bridge: Running, topic: str, payload: bytes, packet_id: int, kafka_topic: KafkaTopic) -> bool:
    """Publish a message, wait for its acknowledgement, and return whether Kafka has received it."""
    before = len(bridge.kafka.sent(kafka_topic))
    bridge.broker.publish(topic, payload, packet_id)
    await until(lambda: packet_id in bridge.broker.acknowledged, "acknowledged")
    return len(bridge.kafka.sent(kafka_topic)) > before


def over_quota(bridge: Running, camera: str) -> float | None:
    return bridge.sample("over_quota_messages_total", camera_id=camera)


async def test_a_camera_with_too_many_unprocessed_bytes_keeps_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = KafkaStandIn()
    partition = partition_of(CAMERA.encode(), [0, 1])
    kafka.committed = {partition: 0}
    settings: dict[str, Any] = {"credit_bytes": 1, "camera_backlog_bytes": 2 * FRAME_BYTES}
    async with bridged(monkeypatch, kafka=kafka, **settings) as bridge:
        found = [await accepted(bridge, FRAMES, frame(seq), seq, KafkaTopic.FRAMES) for seq in range(1, 6)]
        assert found == [True, True, True, False, False]
        assert await accepted(bridge, EVENTS, LEDGER, 10, KafkaTopic.EVENTS)
        other = encode_frame(KEYS.current(YARD), 7, 0, 1000, PICTURE, Encoding(16))
        assert await accepted(bridge, mqtt_topic(YARD, Channel.FRAME), other, 11, KafkaTopic.FRAMES)
        await until(lambda: over_quota(bridge, CAMERA) == 2, "two counted for the camera")
        assert over_quota(bridge, YARD) is None
        await until(lambda: bridge.sample("messages_total", channel="frame", outcome="forwarded") == 4, "four counted")
        kafka.committed = {partition: 3}
        kafka.ends = {partition: 3}
        numbers = iter(range(20, 40))

        async def resend() -> bool:
            return await accepted(bridge, FRAMES, frame(4), next(numbers), KafkaTopic.FRAMES)

        await until(resend, "the frame in Kafka")


async def test_rejected_payloads_leave_room_for_the_dead_letters_of_verified_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kafka, letters = KafkaStandIn(partitions=1), KafkaTopic.DEAD_LETTERS
    monkeypatch.setattr(backlog_module, "RECORD_BYTES", {letters: MAX_UNRECORDED_LETTER_BYTES // 3})
    kafka.other_commits = {letters: {0: (0, "1")}}
    numbers = iter(range(1, 1000))

    async def gets_letter(bridge: Running) -> bool:
        return await accepted(bridge, FRAMES, b"no frame", next(numbers), letters)

    async with bridged(monkeypatch, kafka=kafka) as bridge:
        await until(lambda: kafka.requests.count(("offsets", "pointillist-processors")) > 2, "the recorders' lag read")
        assert [await gets_letter(bridge) for _ in range(6)] == 3 * [True] + 3 * [False]
        await until(lambda: bridge.sample("messages_total", channel="frame", outcome="dropped") == 3, "three dropped")
        assert bridge.sample("messages_total", channel="frame", outcome="dead_lettered") == 3
        assert await accepted(bridge, FRAMES, frame(1), next(numbers), KafkaTopic.FRAMES)
        assert bridge.sample("backpressure_active") == 0
        kafka.other_commits = {letters: {0: (3, "1")}}

        async def gets_another() -> bool:
            return await gets_letter(bridge)

        await until(gets_another, "another dead letter")


async def test_a_resent_frame_that_waits_in_kafka_is_neither_stored_nor_counted_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kafka = KafkaStandIn()
    partition = partition_of(CAMERA.encode(), [0, 1])
    kafka.committed = {partition: 0}
    settings: dict[str, Any] = {"credit_frames": 1, "credit_bytes": 1, "camera_backlog_bytes": 3 * FRAME_BYTES}
    numbers = iter(range(1, 100))

    async def stored(bridge: Running, seq: int) -> bool:
        return await accepted(bridge, FRAMES, frame(seq), next(numbers), KafkaTopic.FRAMES)

    async with bridged(monkeypatch, kafka=kafka, **settings) as bridge:
        await until(lambda: bridge.kafka.requests.count(("offsets", "pointillist-processors")) > 2, "the backlog known")
        assert [await stored(bridge, seq) for seq in (0, 1, 2)] == [True, True, True]
        await until(lambda: bridge.confirmed() == [0], "the frame within the credit confirmed")
        assert [await stored(bridge, seq) for seq in (1, 2, 1, 2, 0)] == [False] * 5
        await until(lambda: bridge.confirmed() == [0, 0], "a confirmation that was lost repeated")
        assert await stored(bridge, 3)
        kafka.committed = {partition: 4}
        kafka.ends = {partition: 4}
        await until(lambda: bridge.confirmed() == [0, 0, 1, 2, 3], "all confirmed")
        assert over_quota(bridge, CAMERA) is None
    async with bridged(monkeypatch, kafka=kafka, **settings) as bridge:
        assert await stored(bridge, 3)


async def test_a_camera_with_tiny_frames_reaches_its_own_limit_before_the_shared_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kafka = KafkaStandIn()
    partition = partition_of(CAMERA.encode(), [0, 1])
    kafka.committed = {partition: 0}
    tiny = [encode_frame(KEYS.current(CAMERA), 7, seq, 1000, PICTURE[:8, :8], Encoding(16)) for seq in range(1, 21)]
    size = len(tiny[0]) + RECORD_OVERHEAD
    settings: dict[str, Any] = {
        "credit_bytes": 1,
        "camera_backlog_bytes": 4 * size,
        "max_backlog_bytes": 8 * size,
    }
    async with bridged(monkeypatch, kafka=kafka, **settings) as bridge:
        found = [await accepted(bridge, FRAMES, each, number, KafkaTopic.FRAMES) for number, each in enumerate(tiny, 1)]
        kafka.ends = {partition: sum(found)}
        await until(lambda: bridge.sample("backlog_bytes") == sum(found) * size, "the lag read")
        assert bridge.sample("backpressure_active") == 0
        assert found == 5 * [True] + 15 * [False]


async def test_a_camera_has_its_own_rate_until_the_file_no_longer_lists_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "rates.json"
    settings: dict[str, Any] = {"camera_bytes_per_s": 1, "camera_window_bytes": 1, "camera_rates": file}
    numbers = iter(range(1, 1000))
    async with bridged(monkeypatch, **settings) as bridge:

        async def sends_frame() -> bool:
            number = next(numbers)
            return await accepted(bridge, FRAMES, frame(number), number, KafkaTopic.FRAMES)

        assert not await sends_frame()
        await until(lambda: over_quota(bridge, CAMERA) == 1, "counted for the camera")
        file.write_text(json.dumps({CAMERA: 64}))
        await until(sends_frame, "the camera accepted")
        file.write_text(json.dumps({YARD: 64}))
        os.utime(file, (1, 1))

        async def is_rejected() -> bool:
            return not await sends_frame()

        await until(is_rejected, "the camera rejected again")


async def test_rejections_in_the_brokers_log_are_counted_and_logged_once_for_each_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bridged(monkeypatch) as bridge:

        def refusals(kind: str) -> float | None:
            return bridge.registry.get_sample_value("pointillist_mqtt_refusals_total", {"kind": kind})

        assert refusals("login") == refusals("subscription") == 0
        with structlog.testing.capture_logs() as logs:
            for line in ("Client site/a disconnected, not authorised.", "Client site/b disconnected, not authorised."):
                for _ in range(2):
                    bridge.broker.publish("$SYS/broker/log/N", f"2026-11-21T22:17:18: {line}".encode(), 0)
            subscription = b"2026-11-21T22:17:18: site/a 0 pointillist/v1/site/b/confirm"
            bridge.broker.publish("$SYS/broker/log/M/subscribe", subscription, 0)
            bridge.broker.publish("$SYS/broker/log/N", b"2026-11-21T22:17:18: Client health disconnected.", 0)
            await until(lambda: refusals("login") == 4, "four counted")
            await until(lambda: refusals("subscription") == 1, "the subscription counted")
        logged = [
            (each["kind"], each["client"], each["detail"]) for each in logs if each["event"] == "mqtt_action_refused"
        ]
        assert logged == [
            ("login", "site/a", ""),
            ("login", "site/b", ""),
            ("subscription", "site/a", "pointillist/v1/site/b/confirm"),
        ]
        assert bridge.sample("messages_total", channel="unknown", outcome="dead_lettered") is None
        assert bridge.kafka.batches == []


def test_the_first_cameras_over_their_quota_have_their_own_series_and_the_rest_share_one() -> None:
    registry = CollectorRegistry()
    rejections = Rejections(registry)

    def counted(camera: str) -> float | None:
        return registry.get_sample_value("pointillist_bridge_over_quota_messages_total", {"camera_id": camera})

    assert counted("other") == 0
    cameras = [CameraId(f"site/{number}") for number in range(MAX_CAMERA_SERIES + 2)]
    with structlog.testing.capture_logs() as logs:
        rejections.show({CameraId(""): 3})
        rejections.show(dict.fromkeys(cameras, 2))
        rejections.show({cameras[0]: 5, cameras[-1]: 7})
    assert counted("other") == 3 + 2 + 2 + 7
    assert counted("") is counted(cameras[-1]) is None
    assert [counted(camera) for camera in cameras[:MAX_CAMERA_SERIES]] == [7] + [2] * (MAX_CAMERA_SERIES - 1)
    assert Counter(each["camera"] for each in logs) == dict.fromkeys(["", *cameras], 1)


async def test_each_stage_of_a_frame_is_stamped_while_a_trace_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with bridged(monkeypatch) as bridge:
        trace.begin(tmp_path, "bridge")
        try:
            bridge.broker.publish(FRAMES, b"no frame", 1)
            bridge.broker.publish(EVENTS, LEDGER, 2)
            for seq in range(2):
                bridge.broker.publish(FRAMES, frame(seq), seq + 3)
            await until(lambda: bridge.broker.acknowledged == [1, 2, 3, 4], "all acknowledged")
        finally:
            trace.end()
        bridge.broker.publish(FRAMES, frame(2), 5)
        await until(lambda: 5 in bridge.broker.acknowledged, "the next one acknowledged")
    (file,) = tmp_path.iterdir()
    stamps = [tuple(line.split("\t")[1:]) for line in file.read_text().splitlines()]
    identities = [f"{CAMERA}/{7:016x}/{seq}" for seq in range(2)]
    for stage in ("received", "sent", "stored"):
        assert [name for stamp, name in stamps if stamp == stage] == identities
    assert len(stamps) == 6


async def test_a_request_that_kafka_never_answers_is_repeated_by_another_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kafka = KafkaStandIn(partitions=1)
    async with bridged(monkeypatch, kafka=kafka) as bridge:
        await until(lambda: ("offsets", "pointillist-processors") in kafka.requests, "the backlog known")
        kafka.reachable.clear()
        monkeypatch.setattr(backlog_module, "REQUEST_S", 0.02)
        await until(lambda: not kafka.admins[0].running, "the client that waits closed")
        monkeypatch.setattr(backlog_module, "REQUEST_S", PATIENCE_S)
        kafka.reachable.set()
        kafka.ends, before = {0: 100}, len(kafka.requests)
        bridge.broker.publish(FRAMES, frame(1), 1)
        await until(lambda: len(kafka.requests) > before and bridge.sample("backlog_bytes"), "the backlog known again")
        assert kafka.admins[-1].running
