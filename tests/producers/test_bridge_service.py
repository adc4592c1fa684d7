"""The whole bridge between a scripted broker and a Kafka stand-in: order, acknowledgements, limits, shutdown."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import structlog
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, UnknownTopicOrPartitionError
from aiokafka.partitioner import DefaultPartitioner

import producers.bridge.kafka.lanes as lanes_module
import producers.bridge.requests.listener as requests_module
import producers.bridge.service as service_module
from producers.bridge.kafka.backlog import FIRSTS_EVERY
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from schemas.limits import MAX_BROKER_BYTES
from schemas.messages.frame import Encoding, encode_frame, open_own_message, sign_message
from schemas.pointillist_pb2 import Confirm, DeadLetter, KeyRequest, Ledger, ProbeRequest, Refusal, State, Status
from schemas.topics import Channel, KafkaTopic, mqtt_topic
from tests.producers import bridge_rig
from tests.producers.bridge_between import CAMERA, FRAME_BYTES, FRAMES, Running, bridged, frame
from tests.producers.bridge_rig import KEYS, PICTURE, SECRET
from tests.producers.kafka_stand_in import Consumer, Event, KafkaStandIn
from tests.producers.scripted_broker import DISCONNECT
from tests.waiting import PATIENCE_S, until

REFUSED = mqtt_topic(CAMERA, Channel.REFUSAL)
OFFSETS_REQUEST = ("offsets", "pointillist-processors")


async def test_frames_are_acknowledged_and_confirmed_once_kafka_has_stored_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bridged(monkeypatch) as bridge:
        bridge.kafka.answers.clear()
        payloads = [frame(seq) for seq in range(5)]
        for number, payload in enumerate(payloads, 1):
            bridge.broker.publish(FRAMES, payload, number)
        await until(lambda: bridge.kafka.batches, "a batch")
        await asyncio.sleep(0.05)  # several intervals, in which nothing may be confirmed
        assert (bridge.broker.acknowledged, bridge.confirmed()) == ([], [])
        assert bridge.sample("unacknowledged_messages") == 5
        bridge.kafka.answers.set()
        await until(lambda: bridge.confirmed() == list(range(5)), "five confirmed")
        assert bridge.broker.acknowledged == [1, 2, 3, 4, 5]
        records = bridge.kafka.sent(KafkaTopic.FRAMES)
        assert [(record.key, record.value) for record in records] == [(CAMERA.encode(), p) for p in payloads]
        assert ("ce_id", b"0000000000000007/0") in records[0].headers
        assert abs(records[0].timestamp - time.time_ns() // 10**6) < 60_000
        await until(lambda: bridge.sample("unacknowledged_messages") == 0, "none in flight")
        assert bridge.sample("messages_total", channel="frame", outcome="forwarded") == 5
        assert bridge.sample("bytes_total") == sum(map(len, payloads))
        assert bridge.sample("confirmations_total") == len(bridge.broker.published)
        assert (bridge.sample("kafka_seconds_count") or 0) >= 1
        assert 0.05 < (bridge.sample("kafka_seconds_sum") or 0) < 60
        assert bridge.sample("kafka_errors_total") == 0


async def test_rejected_messages_are_acknowledged_and_every_message_is_counted_by_its_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = sign_message(KEYS.current(CAMERA), Ledger(boot_id=7, revision=4, next=10))
    async with bridged(monkeypatch) as bridge:
        bridge.broker.publish(FRAMES, b"no frame", 1)
        bridge.broker.publish(mqtt_topic(CAMERA, Channel.EVENT), ledger, 2)
        bridge.broker.publish(mqtt_topic(CAMERA, Channel.EVENT), ledger, 0)
        await until(lambda: bridge.broker.acknowledged == [1, 2], "both acknowledged")
        await until(lambda: bridge.broker.published, "a confirmation")
        (letter,) = bridge.kafka.sent(KafkaTopic.DEAD_LETTERS)
        assert DeadLetter.FromString(letter.value).payload == b"no frame"
        assert ("ce_source", b"/bridges/b1") in letter.headers
        await until(lambda: len(bridge.kafka.sent(KafkaTopic.EVENTS)) == 2, "both ledgers")
        confirm = open_own_message(Confirm, KEYS.current(CAMERA), bridge.broker.published[0][1])
        assert confirm.ledger_revision == 4
        await until(lambda: bridge.sample("messages_total", channel="event", outcome="forwarded") == 2, "two ledgers")
        await until(
            lambda: bridge.sample("messages_total", channel="frame", outcome="dead_lettered") == 1, "one counted"
        )
        assert bridge.sample("messages_total", channel="frame", outcome="forwarded") is None


async def test_a_message_of_a_lost_connection_is_confirmed_and_not_acknowledged_on_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bridged(monkeypatch) as bridge:
        bridge.kafka.answers.clear()
        bridge.broker.publish(FRAMES, frame(1), 1)
        await until(lambda: bridge.kafka.batches, "a batch")
        bridge.broker.hang_up()
        await until(lambda: len(bridge.broker.connects) == 2 and bridge.condition("mqtt")["ok"], "another connection")
        bridge.kafka.answers.set()
        await until(lambda: bridge.confirmed() == [1], "the frame confirmed")
        assert bridge.broker.acknowledged == []
        bridge.broker.publish(FRAMES, frame(2), 9)
        await until(lambda: bridge.broker.acknowledged == [9], "the next one acknowledged")


async def test_confirmations_wait_for_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch) as bridge:
        bridge.broker.publish(FRAMES, frame(1), 1)
        bridge.kafka.answers.clear()
        await until(lambda: bridge.kafka.batches, "a batch")
        bridge.broker.connack = 0x87
        bridge.broker.hang_up()
        await until(lambda: not bridge.condition("mqtt")["ok"], "no connection")
        bridge.kafka.answers.set()
        await until(lambda: bridge.kafka.sent(KafkaTopic.FRAMES), "the frame in Kafka")
        await asyncio.sleep(0.05)  # several intervals
        assert bridge.sample("confirmations_total") == 0
        bridge.broker.connack = 0
        await until(lambda: bridge.confirmed() == [1], "the confirmation")


async def test_a_camera_revoked_while_its_frames_wait_for_kafka_stops_no_other_camera(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys, gate = KeyRing(Roots.of_fleet(SECRET).of(Role.BRIDGE)), CameraId("hall/gate")
    monkeypatch.setattr(bridge_rig, "BRIDGE_KEYS", keys)
    async with bridged(monkeypatch) as bridge:
        bridge.kafka.answers.clear()
        revoked = encode_frame(KEYS.current(gate), 7, 0, 1000, PICTURE, Encoding(16))
        bridge.broker.publish(mqtt_topic(gate, Channel.FRAME), revoked, 1)
        bridge.broker.publish(FRAMES, frame(1), 2)
        await until(lambda: bridge.sample("unacknowledged_messages") == 2, "both in flight")
        keys.accept_from({gate: 1})
        bridge.kafka.answers.set()
        await until(lambda: bridge.confirmed() == [1], "the other one confirmed")
        assert bridge.broker.acknowledged == [1, 2]
        assert not bridge.task.done()


async def test_a_retained_status_of_a_revoked_camera_is_dropped_and_a_new_one_becomes_a_dead_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = KeyRing(Roots.of_fleet(SECRET).of(Role.BRIDGE), {CAMERA: 1})
    monkeypatch.setattr(bridge_rig, "BRIDGE_KEYS", keys)
    status, topic = Status(state=State.ONLINE, boot_id=7), mqtt_topic(CAMERA, Channel.STATUS)
    async with bridged(monkeypatch) as bridge:
        bridge.broker.publish(topic, sign_message(KEYS.key(CAMERA, 0), status), 1, retained=True)
        bridge.broker.publish(topic, b"forged", 2, retained=True)
        bridge.broker.publish(topic, sign_message(KEYS.key(CAMERA, 0), status), 3)
        await until(lambda: bridge.broker.acknowledged == [1, 2, 3], "all acknowledged")
        letters = [DeadLetter.FromString(record.value) for record in bridge.kafka.sent(KafkaTopic.DEAD_LETTERS)]
        assert [letter.reason for letter in letters] == ["malformed", "revoked_key"]


async def test_reading_pauses_at_the_buffer_limit_and_resumes_at_half_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seqs = range(1, 10)
    assert {len(frame(seq)) for seq in seqs} == {FRAME_BYTES - lanes_module.RECORD_OVERHEAD}
    async with bridged(monkeypatch, max_buffered_bytes=8 * FRAME_BYTES, batch_bytes=FRAME_BYTES) as bridge:
        bridge.kafka.answers.clear()
        for seq in seqs[:8]:
            bridge.broker.publish(FRAMES, frame(seq), seq)
        await until(lambda: bridge.sample("unacknowledged_messages") == 8, "eight in flight")
        bridge.broker.publish(FRAMES, frame(9), 9)
        for delivered in range(1, 5):
            await until(lambda: len(bridge.kafka.batches) == delivered, "a batch in flight")  # noqa: B023
            await asyncio.sleep(0)  # until the sender waits for its answer
            bridge.kafka.acknowledge_once()
            await until(lambda: len(bridge.broker.acknowledged) == delivered, "one acknowledged")  # noqa: B023
            in_flight = 8 - delivered + (delivered == 4)
            await until(lambda: bridge.sample("unacknowledged_messages") == in_flight, f"{in_flight} in flight")  # noqa: B023
            await asyncio.sleep(0.03)  # a bridge that did not pause would read more in this time
            assert bridge.sample("unacknowledged_messages") == in_flight
        bridge.kafka.answers.set()
        await until(lambda: bridge.confirmed() == list(seqs), "all confirmed")


async def test_an_unknown_backlog_stops_no_camera_from_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise KafkaError("away")

    monkeypatch.setattr("tests.producers.kafka_stand_in.Admin._send_request", fail)
    small: dict[str, Any] = {"camera_backlog_bytes": 2 * FRAME_BYTES, "credit_bytes": 1}
    async with bridged(monkeypatch, ready=False, **small) as bridge, asyncio.timeout(60):
        # The bridge is never healthy for long: the lag cannot be read.
        await until(lambda: bridge.condition("mqtt")["ok"] and bridge.condition("kafka")["ok"], "a connected bridge")
        for seq in range(8):
            while seq not in bridge.confirmed():
                bridge.broker.publish(FRAMES, frame(seq), seq + 1)
                await asyncio.sleep(0.1)


async def test_frames_beyond_the_credit_are_acknowledged_at_once_and_confirmed_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bridged(monkeypatch, kafka=KafkaStandIn(partitions=1), credit_frames=3) as bridge:
        await send_beyond_the_credit(bridge, 3)
        bridge.kafka.committed = {0: 4}
        await until(lambda: bridge.confirmed() == list(range(7)), "the later ones confirmed")


async def send_beyond_the_credit(bridge: Running, confirmed: int) -> None:
    """Send eight frames and wait until this many are confirmed."""
    await until(lambda: bridge.kafka.requests.count(OFFSETS_REQUEST) > 2, "the backlog known")
    for seq in range(8):
        bridge.broker.publish(FRAMES, frame(seq), seq + 1)
    await until(lambda: bridge.broker.acknowledged == list(range(1, 9)), "all acknowledged")
    await until(lambda: bridge.confirmed() == list(range(confirmed)), "the first confirmed")


@pytest.mark.parametrize("loss", ["deleted by retention", "topic made again", "end of the log cut"])
async def test_frames_that_kafka_has_lost_are_confirmed_only_after_their_resend(
    monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    kafka = KafkaStandIn(partitions=1)
    kafka.committed = {0: 2}
    log = kafka.log[KafkaTopic.FRAMES.value, 0]
    async with bridged(monkeypatch, kafka=kafka, credit_frames=3) as bridge:
        await send_beyond_the_credit(bridge, 5)
        if loss == "deleted by retention":
            kafka.firsts = {0: 8}
        elif loss == "topic made again":
            kafka.committed = {0: 1}
        else:
            del log[5:]
        before = kafka.requests.count(OFFSETS_REQUEST)
        await until(lambda: kafka.requests.count(OFFSETS_REQUEST) > before + FIRSTS_EVERY + 1, "the loss noticed")
        assert bridge.confirmed() == list(range(5))
        kept = len(log)
        for seq in range(5, 8):
            bridge.broker.publish(FRAMES, frame(seq), seq + 10)
        await until(lambda: len(bridge.broker.acknowledged) == 11, "the resends acknowledged")
        assert [record.value for record in log[kept:]] == [frame(seq) for seq in range(5, 8)]
        kafka.committed = {0: len(log)}
        await until(lambda: bridge.confirmed() == list(range(8)), "the resends confirmed")


async def test_the_backlog_of_a_partition_is_measured_with_its_own_record_size(monkeypatch: pytest.MonkeyPatch) -> None:
    cameras = [CameraId(f"hall/camera-{number}") for number in range(8)]
    partition_of = DefaultPartitioner()
    async with bridged(monkeypatch) as bridge:
        for number, camera in enumerate(cameras):
            picture = PICTURE if partition_of(camera.encode(), [0, 1], [0, 1]) else PICTURE[:8, :8]
            payload = encode_frame(KEYS.current(camera), 7, 0, 1000, picture, Encoding(16))
            bridge.broker.publish(mqtt_topic(camera, Channel.FRAME), payload, number + 1)
        await until(lambda: len(bridge.broker.acknowledged) == 8, "all acknowledged")
        sizes = []
        for partition in bridge.kafka.partitions:
            records = bridge.kafka.log[KafkaTopic.FRAMES.value, partition]
            sizes.append(sum(len(record.value) + lanes_module.RECORD_OVERHEAD for record in records) / len(records))
        assert sizes[0] != sizes[1]
        for partition, size in enumerate(sizes):
            bridge.kafka.ends = {partition: 100}
            await until(lambda: bridge.sample("backlog_bytes") == round(100 * size), "its own size")  # noqa: B023


def _event(request: KeyRequest | ProbeRequest | Refusal) -> Event:
    signed = sign_message(KEYS.current(CAMERA), request)
    return Event(CAMERA.encode(), signed, [("ce_type", request.DESCRIPTOR.full_name.encode())])


def _probes() -> ProbeRequest:
    return ProbeRequest(issued_ms=time.time_ns() // 10**6, probe_share=0.5)


async def test_requests_from_kafka_reach_the_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch) as bridge:
        refusal = Refusal(boot_id=7, seq=3, reason="over_size")
        bridge.kafka.events.put_nowait([_event(KeyRequest(boot_id=7, seq=3)), _event(_probes()), _event(refusal)])
        await until(lambda: len(bridge.broker.published) == 3, "two requests and a refusal at the broker")
        (key_topic, key, key_retained), (probes_topic, probes, probes_retained), refused = bridge.broker.published
        assert (key_topic, key_retained) == (mqtt_topic(CAMERA, Channel.KEY_REQUEST), False)
        assert open_own_message(KeyRequest, KEYS.current(CAMERA), key).seq == 3
        assert (probes_topic, probes_retained) == (mqtt_topic(CAMERA, Channel.PROBES), True)
        assert open_own_message(ProbeRequest, KEYS.current(CAMERA), probes).probe_share == 0.5
        assert (refused[0], refused[2]) == (mqtt_topic(CAMERA, Channel.REFUSAL), False)
        assert open_own_message(Refusal, KEYS.current(CAMERA), refused[1]).reason == "over_size"
        assert bridge.sample("key_requests_total") == bridge.sample("probe_requests_total") == 1


@pytest.mark.parametrize("request_", [KeyRequest(boot_id=7, seq=3), _probes(), Refusal(boot_id=7, seq=3)])
async def test_forged_requests_are_counted_by_their_kind(
    monkeypatch: pytest.MonkeyPatch, request_: KeyRequest | ProbeRequest | Refusal
) -> None:
    kind = type(request_).__name__
    async with bridged(monkeypatch) as bridge:
        for each in ("KeyRequest", "ProbeRequest", "Refusal"):
            assert bridge.sample("refused_requests_total", kind=each) == 0
        forged = _event(request_)
        bridge.kafka.events.put_nowait([forged._replace(value=(forged.value or b"")[:-1] + b"?")])
        await until(lambda: bridge.sample("refused_requests_total", kind=kind) == 1, "counted")
        assert bridge.broker.published == []


async def test_a_request_without_an_mqtt_connection_is_dropped_and_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch) as bridge:
        bridge.broker.connack = 0x87
        bridge.broker.hang_up()
        await until(lambda: not bridge.condition("mqtt")["ok"], "no connection")
        refusal = Refusal(boot_id=7, seq=3, reason="over_size")
        bridge.kafka.events.put_nowait([_event(KeyRequest(boot_id=7, seq=3)), _event(_probes()), _event(refusal)])
        await until(bridge.kafka.events.empty, "the requests read")
        await asyncio.sleep(0.02)  # a bridge that did not drop them would count them in this time
        assert bridge.sample("key_requests_total") == bridge.sample("probe_requests_total") == 0


async def test_messages_that_arrive_during_a_linger_are_read_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch, linger_ms=50, linger_adapts=False) as bridge:
        for seq in range(0, 6, 2):
            bridge.broker.publish(FRAMES, frame(seq), seq + 1)
            await asyncio.sleep(0.01)  # the bridge has read it and lingers
            bridge.broker.publish(FRAMES, frame(seq + 1), seq + 2)
            await until(lambda: bridge.broker.acknowledged == list(range(1, seq + 3)), "both acknowledged")  # noqa: B023


async def test_a_stop_delivers_acknowledges_confirms_and_disconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch, linger_ms=10_000, linger_adapts=False, confirm_interval_ms=60_000) as bridge:
        for seq in range(3):
            bridge.broker.publish(FRAMES, frame(seq), seq + 1)
        bridge.broker.publish(FRAMES, b"no frame", 9)
        await asyncio.sleep(0.1)  # the bridge has read them and lingers
        assert not bridge.kafka.batches
        bridge.stopping.set()
        await until(lambda: bridge.kafka.batches, "the waiting records sent", 5)
        await asyncio.wait_for(bridge.task, 30)
        await until(lambda: bridge.broker.count(DISCONNECT) == 1, "a DISCONNECT")
        assert bridge.broker.acknowledged == [1, 2, 3, 9]
        assert bridge.broker.packets[-1][0] & 0xF0 == DISCONNECT & 0xF0  # no packet follows the DISCONNECT
        assert bridge.confirmed() == [0, 1, 2]
        assert bridge.sample("messages_total", channel="frame", outcome="forwarded") == 3
        assert [producer.running for producer in bridge.kafka.producers] == [False]
        assert not any(client.running for client in [*bridge.kafka.consumers, *bridge.kafka.admins])


async def test_a_stopping_bridge_reads_no_more_messages_while_it_waits_for_kafka(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bridged(monkeypatch, batch_bytes=FRAME_BYTES) as bridge:
        bridge.kafka.answers.clear()
        for seq in range(3):
            bridge.broker.publish(FRAMES, frame(seq), seq + 1)
        await until(lambda: bridge.sample("unacknowledged_messages") == 3, "three in flight")
        bridge.stopping.set()
        await asyncio.sleep(0)
        bridge.broker.publish(FRAMES, frame(3), 4)
        bridge.kafka.acknowledge_once()
        await until(lambda: bridge.broker.acknowledged == [1], "one acknowledged")
        await asyncio.sleep(0.05)  # a bridge that did not stop would read in this time
        bridge.kafka.answers.set()
        await asyncio.wait_for(bridge.task, PATIENCE_S)
        await until(lambda: bridge.broker.count(DISCONNECT) == 1, "a DISCONNECT")
        assert bridge.broker.acknowledged == [1, 2, 3]
        assert len(bridge.kafka.sent(KafkaTopic.FRAMES)) == 3


async def test_a_stop_ends_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch, shutdown_s=0.1) as bridge:
        bridge.kafka.answers.clear()
        bridge.broker.publish(FRAMES, frame(1), 1)
        await until(lambda: bridge.kafka.batches, "a batch")
        bridge.stopping.set()
        with structlog.testing.capture_logs() as logs:
            await asyncio.wait_for(bridge.task, PATIENCE_S)
        assert [
            entry["unacknowledged"] for entry in logs if entry["event"] == "stopped_with_unacknowledged_records"
        ] == [1]
        assert bridge.broker.acknowledged == []


async def test_a_batch_without_an_acknowledgement_is_reported_in_the_health_until_one_arrives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service_module, "STALL_S", 0.05)
    async with bridged(monkeypatch) as bridge:
        bridge.kafka.answers.clear()
        bridge.broker.publish(FRAMES, frame(1), 1)
        await until(lambda: not bridge.is_healthy(), "a bridge that is not healthy")
        assert bridge.condition("kafka") == {"ok": False, "detail": "no acknowledgement"}
        bridge.kafka.answers.set()
        await until(bridge.is_healthy, "a bridge that is healthy again")
        assert bridge.condition("kafka") == {"ok": True, "detail": ""}


async def test_a_batch_without_an_acknowledgement_in_time_is_resent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch, delivery_deadline_s=0.05) as bridge:
        bridge.kafka.answers.clear()
        bridge.broker.publish(FRAMES, frame(1), 1)
        await until(lambda: (bridge.sample("kafka_errors_total") or 0) > 0, "the batch to time out")
        bridge.kafka.answers.set()
        await until(lambda: bridge.broker.acknowledged == [1], "acknowledged")


@pytest.mark.parametrize("error", [KafkaError("out of order"), OSError("connection lost"), RuntimeError("a defect")])
async def test_a_failed_batch_is_resent_by_a_new_producer(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async with bridged(monkeypatch) as bridge:
        reports: list[tuple[str, bool, str]] = []
        monkeypatch.setattr(bridge.health, "set", lambda *report: reports.append((*report, "")[:3]))
        bridge.kafka.batch_errors.append(error)
        bridge.broker.publish(FRAMES, frame(1), 1)
        await until(lambda: bridge.broker.acknowledged == [1], "acknowledged")
        assert ("kafka", False, f"pointillist.frames.v1: {error!r}") in reports
        assert reports[-1] == ("kafka", True, "")
        assert len(bridge.kafka.batches) == 2
        assert [producer.running for producer in bridge.kafka.producers] == [False, True]
        assert bridge.sample("kafka_errors_total") == 1


async def test_a_record_rejected_in_every_batch_becomes_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch) as bridge:
        bridge.kafka.batch_errors.extend([MessageSizeTooLargeError("too large")] * 2)
        for seq in range(2):
            bridge.broker.publish(FRAMES, frame(seq), seq + 1)
        await until(lambda: bridge.broker.acknowledged == [1, 2], "both acknowledged")
        assert bridge.sample("kafka_errors_total") == 2
        letters = [DeadLetter.FromString(record.value) for record in bridge.kafka.sent(KafkaTopic.DEAD_LETTERS)]
        assert [letter.camera_id for letter in letters] == [CAMERA]
        assert f"Kafka refused {len(frame(0))} bytes" in letters[0].error
        # A rejected batch leaves a gap in its producer's sequence numbers, and Kafka accepts no later batch from it.
        assert [producer.running for producer in bridge.kafka.producers] == [False, False, True]
        assert len(bridge.kafka.sent(KafkaTopic.FRAMES)) == 1
        await until(lambda: bridge.sample("messages_total", channel="frame", outcome="dead_lettered") == 1, "counted")
        await until(lambda: bridge.sample("messages_total", channel="frame", outcome="forwarded") == 1, "the other one")
        # No reader can verify the identity in a bridge's dead letter. The camera accounts for the frame: it sheds it.
        await until(lambda: bridge.confirmed() == [1], "the other one confirmed")
        refused = [payload for topic, payload, _ in bridge.broker.published if topic == REFUSED]
        [refusal] = [open_own_message(Refusal, KEYS.current(CAMERA), payload) for payload in refused]
        assert (refusal.boot_id, refusal.seq, refusal.reason) == (7, 0, "too_large")
        assert refusal.detail.startswith(f"Kafka refused {len(frame(0))} bytes: ")
        assert "Set a smaller size for the camera" in refusal.detail


async def test_a_record_without_a_verified_frame_that_kafka_rejects_reaches_no_camera(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = sign_message(KEYS.current(CAMERA), Ledger(boot_id=7, revision=4, next=10))
    async with bridged(monkeypatch) as bridge:
        for payload, topic in ((b"no frame", FRAMES), (ledger, mqtt_topic(CAMERA, Channel.EVENT))):
            letters = len(bridge.kafka.sent(KafkaTopic.DEAD_LETTERS))
            bridge.kafka.batch_errors.append(MessageSizeTooLargeError("too large"))
            bridge.broker.publish(topic, payload, letters + 1)
            await until(lambda n=letters: len(bridge.kafka.sent(KafkaTopic.DEAD_LETTERS)) > n, "a dead letter")
        bridge.broker.publish(FRAMES, frame(1), 9)
        await until(lambda: bridge.confirmed() == [1], "the later frame confirmed")
        assert not [topic for topic, _, _ in bridge.broker.published if topic == REFUSED]


async def test_a_bridge_is_unhealthy_from_its_start_while_kafka_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kafka = KafkaStandIn()
    kafka.reachable.clear()
    async with bridged(monkeypatch, kafka=kafka, ready=False) as bridge:
        await until(lambda: kafka.producers, "a try")
        await asyncio.sleep(0.05)  # several intervals
        assert bridge.condition("kafka") == {"ok": False, "detail": "not connected yet"}
        assert len(kafka.producers) == 1
        kafka.reachable.set()
        await until(bridge.is_healthy, "a bridge that is healthy")


@pytest.mark.parametrize("error", [KafkaError("no broker"), AssertionError("7 should be at most 2")])
async def test_a_bridge_reads_no_message_before_kafka_answers_without_an_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    kafka = KafkaStandIn()
    kafka.start_error = error
    kafka.partition_errors.append(UnknownTopicOrPartitionError("not yet"))
    async with bridged(monkeypatch, kafka=kafka, ready=False) as bridge:
        await until(lambda: len(kafka.producers) > 2, "several tries")
        assert bridge.condition("kafka")["ok"] is False
        assert bridge.condition("kafka")["detail"] == "no answer from nowhere:1: KafkaError"
        assert bridge.broker.connects == []
        assert not any(producer.running for producer in kafka.producers)
        assert all(producer.ended for producer in kafka.producers[:-1])
        kafka.start_error = None
        await until(bridge.is_healthy, "a bridge that is healthy")
        assert kafka.requests[:2] == [("partitions", "pointillist.frames.v1")] * 2
    (options,) = {tuple(sorted(producer.options.items())) for producer in kafka.producers}
    assert dict(options) == {
        "bootstrap_servers": "nowhere:1",
        "client_id": "b1",
        "acks": "all",
        "enable_idempotence": True,
        "max_batch_size": MAX_BROKER_BYTES,
        "max_request_size": MAX_BROKER_BYTES,
        "request_timeout_ms": 10_000,
    }


async def test_a_missing_topic_is_reported_in_the_health(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = KafkaStandIn()
    kafka.partition_errors.extend(UnknownTopicOrPartitionError("not yet") for _ in range(200))
    async with bridged(monkeypatch, kafka=kafka, ready=False) as bridge:
        await until(lambda: "expected topic" in str(bridge.condition("kafka")["detail"]), "the topic named")
        assert bridge.condition("kafka")["ok"] is False
        assert (
            bridge.condition("kafka")["detail"] == "expected topic pointillist.frames.v1: UnknownTopicOrPartitionError"
        )
        kafka.partition_errors.clear()
        await until(bridge.is_healthy, "a bridge that is healthy")


async def _forward_key_request(bridge: Running, seq: int) -> None:
    bridge.kafka.events.put_nowait([_event(KeyRequest(boot_id=7, seq=seq))])
    await until(lambda: bridge.sample("key_requests_total") == seq, "a forwarded request")


def _readers(bridge: Running) -> list[Consumer]:
    """Return the clients that read events."""
    return [consumer for consumer in bridge.kafka.consumers if consumer.topics]


async def test_requests_are_forwarded_from_the_start_and_again_after_kafka_recovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bridged(monkeypatch) as bridge:
        await _forward_key_request(bridge, 1)
        (reader,) = _readers(bridge)
        assert reader.topics == ["pointillist.events.v1"]
        assert reader.options["client_id"] == "b1-requests"
        assert reader.options["auto_offset_reset"] == "latest"
        with structlog.testing.capture_logs() as logs:
            for _ in range(requests_module.LOG_AFTER - 1):
                bridge.kafka.events.put_nowait(KafkaError("away"))
            await until(
                lambda: len(_readers(bridge)) == requests_module.LOG_AFTER and _readers(bridge)[-1].running, "a reader"
            )
            await _forward_key_request(bridge, 2)
            assert logs == []
            for _ in range(requests_module.LOG_AFTER + 1):
                bridge.kafka.events.put_nowait(KafkaError("away"))
            await until(bridge.kafka.events.empty, "all failures met")
            await _forward_key_request(bridge, 3)
        assert [entry["event"] for entry in logs] == ["requests_not_read"]
        assert [reader.running for reader in _readers(bridge)] == [False] * (len(_readers(bridge)) - 1) + [True]


async def test_no_frame_is_confirmed_while_the_lag_is_unknown_and_frames_lost_meanwhile_get_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kafka = KafkaStandIn(partitions=1)
    kafka.committed = {0: 0}
    async with bridged(monkeypatch, kafka=kafka, credit_frames=1) as bridge:
        await until(lambda: bridge.kafka.requests.count(("offsets", "pointillist-processors")) > 2, "the backlog known")
        for seq in range(3):
            bridge.broker.publish(FRAMES, frame(seq), seq + 1)
        await until(lambda: bridge.confirmed() == [0], "one confirmed")
        (follower,) = [consumer for consumer in kafka.consumers if not consumer.topics]
        assert {each.options["client_id"] for each in (follower, *kafka.admins)} == {"b1-backlog"}
        assert ("coordinator", "pointillist-processors") in kafka.requests

        async def fail(*_: object) -> None:
            raise AttributeError("a controller that is not known")

        with structlog.testing.capture_logs() as logs, monkeypatch.context() as patched:
            patched.setattr("tests.producers.kafka_stand_in.Admin._send_request", fail)
            await until(lambda: len(kafka.admins) > 5, "asked again")
            assert bridge.confirmed() == [0]
            assert bridge.health.report()[1]["lag"]["ok"] is False
            logged = [entry["event"] for entry in logs]
            del kafka.log[KafkaTopic.FRAMES.value, 0][2:]
        assert logged == ["lag_not_read"]
        kafka.committed = {0: 2}
        await until(lambda: bridge.confirmed() == [0, 1], "the kept one confirmed")
        assert bridge.health.report()[1]["lag"]["ok"] is True
        bridge.broker.publish(FRAMES, frame(2), 4)
        await until(lambda: bridge.broker.acknowledged == [1, 2, 3, 4], "the resend acknowledged")
        assert [record.value for record in kafka.log[KafkaTopic.FRAMES.value, 0]] == [frame(0), frame(1), frame(2)]
        assert not any(client.running for client in [*kafka.admins[:-2], follower])
