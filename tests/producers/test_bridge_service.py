"""The whole bridge between a scripted broker and a stand-in for Kafka: order, acknowledgements, pressure, shutdown."""

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
from tests.producers import bridge_between
from tests.producers.bridge_between import CAMERA, FRAME_BYTES, FRAMES, KEYS, SECRET, Running, bridged, frame
from tests.producers.bridge_rig import PICTURE
from tests.producers.kafka_stand_in import Consumer, Event, KafkaStandIn
from tests.producers.scripted_broker import DISCONNECT
from tests.waiting import PATIENCE_S, until

ASKED_OFFSETS = ("offsets", "pointillist-processors")


async def test_frames_are_acknowledged_and_confirmed_when_kafka_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch) as it:
        it.kafka.answers.clear()
        payloads = [frame(seq) for seq in range(5)]
        for number, payload in enumerate(payloads, 1):
            it.broker.publish(FRAMES, payload, number)
        await until(lambda: it.kafka.batches, "a batch")
        await asyncio.sleep(0.05)  # several intervals, in which nothing may be confirmed
        assert (it.broker.acknowledged, it.confirmed()) == ([], [])
        assert it.metric("unacknowledged_messages") == 5
        it.kafka.answers.set()
        await until(lambda: it.confirmed() == list(range(5)), "five confirmed")
        assert it.broker.acknowledged == [1, 2, 3, 4, 5]
        records = it.kafka.sent(KafkaTopic.FRAMES)
        assert [(record.key, record.value) for record in records] == [(CAMERA.encode(), p) for p in payloads]
        assert ("ce_id", b"0000000000000007/0") in records[0].headers
        assert abs(records[0].timestamp - time.time_ns() // 10**6) < 60_000
        await until(lambda: it.metric("unacknowledged_messages") == 0, "none on the way")
        assert it.metric("messages_total", channel="frame", outcome="forwarded") == 5
        assert it.metric("bytes_total") == sum(map(len, payloads))
        assert it.metric("confirmations_total") == len(it.broker.published)
        assert (it.metric("kafka_seconds_count") or 0) >= 1
        assert 0.05 < (it.metric("kafka_seconds_sum") or 0) < 60
        assert it.metric("kafka_errors_total") == 0


async def test_what_is_refused_or_unsigned_is_acknowledged_and_counted_as_what_it_became(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = sign_message(KEYS.current(CAMERA), Ledger(boot_id=7, revision=4, next=10))
    async with bridged(monkeypatch) as it:
        it.broker.publish(FRAMES, b"no frame", 1)
        it.broker.publish(mqtt_topic(CAMERA, Channel.EVENT), ledger, 2)
        it.broker.publish(mqtt_topic(CAMERA, Channel.EVENT), ledger, 0)
        await until(lambda: it.broker.acknowledged == [1, 2], "both acknowledged")
        await until(lambda: it.broker.published, "a confirmation")
        (letter,) = it.kafka.sent(KafkaTopic.DEAD_LETTERS)
        assert DeadLetter.FromString(letter.value).payload == b"no frame"
        assert ("ce_source", b"/bridges/b1") in letter.headers
        await until(lambda: len(it.kafka.sent(KafkaTopic.EVENTS)) == 2, "both ledgers")
        confirm = open_own_message(Confirm, KEYS.current(CAMERA), it.broker.published[0][1])
        assert confirm.ledger_revision == 4
        await until(lambda: it.metric("messages_total", channel="event", outcome="forwarded") == 2, "two counted")
        await until(lambda: it.metric("messages_total", channel="frame", outcome="dead_lettered") == 1, "one counted")
        assert it.metric("messages_total", channel="frame", outcome="forwarded") is None


async def test_what_a_connection_delivered_is_not_acknowledged_on_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch) as it:
        it.kafka.answers.clear()
        it.broker.publish(FRAMES, frame(1), 1)
        await until(lambda: it.kafka.batches, "a batch")
        it.broker.hang_up()
        await until(lambda: len(it.broker.connects) == 2 and it.condition("mqtt")["ok"], "another connection")
        it.kafka.answers.set()
        await until(lambda: it.confirmed() == [1], "confirmed all the same")
        assert it.broker.acknowledged == []
        it.broker.publish(FRAMES, frame(2), 9)
        await until(lambda: it.broker.acknowledged == [9], "the next one acknowledged")


async def test_confirmations_wait_for_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch) as it:
        it.broker.publish(FRAMES, frame(1), 1)
        it.kafka.answers.clear()
        await until(lambda: it.kafka.batches, "a batch")
        it.broker.connack = 0x87
        it.broker.hang_up()
        await until(lambda: not it.condition("mqtt")["ok"], "no connection")
        it.kafka.answers.set()
        await until(lambda: it.kafka.sent(KafkaTopic.FRAMES), "the frame in Kafka")
        await asyncio.sleep(0.05)  # several intervals
        assert it.metric("confirmations_total") == 0
        it.broker.connack = 0
        await until(lambda: it.confirmed() == [1], "the confirmation")


async def test_a_camera_that_is_revoked_while_its_frames_wait_for_kafka_stops_no_other_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys, gate = KeyRing(Roots.of_fleet(SECRET).of(Role.BRIDGE)), CameraId("hall/gate")
    monkeypatch.setattr(bridge_between, "BRIDGE_KEYS", keys)
    async with bridged(monkeypatch) as it:
        it.kafka.answers.clear()
        revoked = encode_frame(KEYS.current(gate), 7, 0, 1000, PICTURE, Encoding(16))
        it.broker.publish(mqtt_topic(gate, Channel.FRAME), revoked, 1)
        it.broker.publish(FRAMES, frame(1), 2)
        await until(lambda: it.metric("unacknowledged_messages") == 2, "both on the way")
        keys.accept_from({gate: 1})
        it.kafka.answers.set()
        await until(lambda: it.confirmed() == [1], "the other one confirmed")
        assert it.broker.acknowledged == [1, 2]
        assert not it.task.done()


async def test_what_the_broker_retained_of_a_revoked_camera_is_no_dead_letter_and_what_comes_from_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = KeyRing(Roots.of_fleet(SECRET).of(Role.BRIDGE), {CAMERA: 1})
    monkeypatch.setattr(bridge_between, "BRIDGE_KEYS", keys)
    status, topic = Status(state=State.ONLINE, boot_id=7), mqtt_topic(CAMERA, Channel.STATUS)
    async with bridged(monkeypatch) as it:
        it.broker.publish(topic, sign_message(KEYS.key(CAMERA, 0), status), 1, retained=True)
        it.broker.publish(topic, b"forged", 2, retained=True)
        it.broker.publish(topic, sign_message(KEYS.key(CAMERA, 0), status), 3)
        await until(lambda: it.broker.acknowledged == [1, 2, 3], "all acknowledged")
        letters = [DeadLetter.FromString(record.value) for record in it.kafka.sent(KafkaTopic.DEAD_LETTERS)]
        assert [letter.reason for letter in letters] == ["malformed", "revoked_key"]


async def test_what_is_read_waits_for_half_of_what_may_be_held_to_the_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    seqs = range(1, 10)
    assert {len(frame(seq)) for seq in seqs} == {FRAME_BYTES - lanes_module.RECORD_OVERHEAD}
    async with bridged(monkeypatch, max_buffered_bytes=8 * FRAME_BYTES, batch_bytes=FRAME_BYTES) as it:
        it.kafka.answers.clear()
        for seq in seqs[:8]:
            it.broker.publish(FRAMES, frame(seq), seq)
        await until(lambda: it.metric("unacknowledged_messages") == 8, "eight on the way")
        it.broker.publish(FRAMES, frame(9), 9)
        for delivered in range(1, 5):
            await until(lambda: len(it.kafka.batches) == delivered, "a batch in flight")  # noqa: B023
            await asyncio.sleep(0)  # until its answer is waited for
            it.kafka.answer_once()
            await until(lambda: len(it.broker.acknowledged) == delivered, "one acknowledged")  # noqa: B023
            on_the_way = 8 - delivered + (delivered == 4)
            await until(lambda: it.metric("unacknowledged_messages") == on_the_way, f"{on_the_way} on the way")  # noqa: B023
            await asyncio.sleep(0.03)  # time to read more, if it did
            assert it.metric("unacknowledged_messages") == on_the_way
        it.kafka.answers.set()
        await until(lambda: it.confirmed() == list(seqs), "all confirmed")


async def test_a_backlog_that_stays_unknown_keeps_no_camera_from_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise KafkaError("away")

    monkeypatch.setattr("tests.producers.kafka_stand_in.Admin._send_request", away)
    small: dict[str, Any] = {"camera_backlog_bytes": 2 * FRAME_BYTES, "credit_bytes": 1}
    async with bridged(monkeypatch, ready=False, **small) as it, asyncio.timeout(60):
        # It is never well for long: the lag cannot be read.
        await until(lambda: it.condition("mqtt")["ok"] and it.condition("kafka")["ok"], "a connected bridge")
        for seq in range(8):
            while seq not in it.confirmed():
                it.broker.publish(FRAMES, frame(seq), seq + 1)
                await asyncio.sleep(0.1)


async def test_frames_beyond_the_credit_are_acknowledged_and_confirmed_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch, kafka=KafkaStandIn(partitions=1), credit_frames=3) as it:
        await beyond_the_credit(it, 3)
        it.kafka.committed = {0: 4}
        await until(lambda: it.confirmed() == list(range(7)), "the later ones confirmed")


async def beyond_the_credit(it: Running, confirmed: int) -> None:
    """Send eight frames, of which so many are confirmed."""
    await until(lambda: it.kafka.asked.count(ASKED_OFFSETS) > 2, "the backlog known")
    for seq in range(8):
        it.broker.publish(FRAMES, frame(seq), seq + 1)
    await until(lambda: it.broker.acknowledged == list(range(1, 9)), "all acknowledged")
    await until(lambda: it.confirmed() == list(range(confirmed)), "the first confirmed")


@pytest.mark.parametrize("loss", ["deleted by retention", "topic made again", "end of the log cut"])
async def test_frames_that_kafka_has_lost_are_confirmed_only_when_they_were_sent_again(
    monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    kafka = KafkaStandIn(partitions=1)
    kafka.committed = {0: 2}
    log = kafka.log[KafkaTopic.FRAMES.value, 0]
    async with bridged(monkeypatch, kafka=kafka, credit_frames=3) as it:
        await beyond_the_credit(it, 5)
        if loss == "deleted by retention":
            kafka.firsts = {0: 8}
        elif loss == "topic made again":
            kafka.committed = {0: 1}
        else:
            del log[5:]
        before = kafka.asked.count(ASKED_OFFSETS)
        await until(lambda: kafka.asked.count(ASKED_OFFSETS) > before + FIRSTS_EVERY + 1, "the loss noticed")
        assert it.confirmed() == list(range(5))
        kept = len(log)
        for seq in range(5, 8):
            it.broker.publish(FRAMES, frame(seq), seq + 10)
        await until(lambda: len(it.broker.acknowledged) == 11, "the resends acknowledged")
        assert [record.value for record in log[kept:]] == [frame(seq) for seq in range(5, 8)]
        kafka.committed = {0: len(log)}
        await until(lambda: it.confirmed() == list(range(8)), "the resends confirmed")


async def test_a_backlog_counts_each_partition_s_records_by_their_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    cameras = [CameraId(f"hall/camera-{number}") for number in range(8)]
    partition_of = DefaultPartitioner()
    async with bridged(monkeypatch) as it:
        for number, camera in enumerate(cameras):
            picture = PICTURE if partition_of(camera.encode(), [0, 1], [0, 1]) else PICTURE[:8, :8]
            payload = encode_frame(KEYS.current(camera), 7, 0, 1000, picture, Encoding(16))
            it.broker.publish(mqtt_topic(camera, Channel.FRAME), payload, number + 1)
        await until(lambda: len(it.broker.acknowledged) == 8, "all acknowledged")
        sizes = []
        for partition in it.kafka.partitions:
            records = it.kafka.log[KafkaTopic.FRAMES.value, partition]
            sizes.append(sum(len(record.value) + lanes_module.RECORD_OVERHEAD for record in records) / len(records))
        assert sizes[0] != sizes[1]
        for partition, size in enumerate(sizes):
            it.kafka.ends = {partition: 100}
            await until(lambda: it.metric("backlog_bytes") == round(100 * size), "its own size")  # noqa: B023


def _event(request: KeyRequest | ProbeRequest | Refusal) -> Event:
    signed = sign_message(KEYS.current(CAMERA), request)
    return Event(CAMERA.encode(), signed, [("ce_type", request.DESCRIPTOR.full_name.encode())])


def _probes() -> ProbeRequest:
    return ProbeRequest(issued_ms=time.time_ns() // 10**6, probe_share=0.5)


async def test_requests_from_kafka_reach_the_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch) as it:
        refusal = Refusal(boot_id=7, seq=3, reason="over_size")
        it.kafka.events.put_nowait([_event(KeyRequest(boot_id=7, seq=3)), _event(_probes()), _event(refusal)])
        await until(lambda: len(it.broker.published) == 3, "two requests and a refusal at the broker")
        (key_topic, key, key_retained), (probes_topic, probes, probes_retained), refused = it.broker.published
        assert (key_topic, key_retained) == (mqtt_topic(CAMERA, Channel.KEY_REQUEST), False)
        assert open_own_message(KeyRequest, KEYS.current(CAMERA), key).seq == 3
        assert (probes_topic, probes_retained) == (mqtt_topic(CAMERA, Channel.PROBES), True)
        assert open_own_message(ProbeRequest, KEYS.current(CAMERA), probes).probe_share == 0.5
        assert (refused[0], refused[2]) == (mqtt_topic(CAMERA, Channel.REFUSAL), False)
        assert open_own_message(Refusal, KEYS.current(CAMERA), refused[1]).reason == "over_size"
        assert it.metric("key_requests_total") == it.metric("probe_requests_total") == 1


@pytest.mark.parametrize("request_", [KeyRequest(boot_id=7, seq=3), _probes(), Refusal(boot_id=7, seq=3)])
async def test_forged_requests_are_counted_by_their_kind(
    monkeypatch: pytest.MonkeyPatch, request_: KeyRequest | ProbeRequest | Refusal
) -> None:
    kind = type(request_).__name__
    async with bridged(monkeypatch) as it:
        for each in ("KeyRequest", "ProbeRequest", "Refusal"):
            assert it.metric("refused_requests_total", kind=each) == 0
        forged = _event(request_)
        it.kafka.events.put_nowait([forged._replace(value=(forged.value or b"")[:-1] + b"?")])
        await until(lambda: it.metric("refused_requests_total", kind=kind) == 1, "counted")
        assert it.broker.published == []


async def test_a_request_without_a_connection_is_dropped_and_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch) as it:
        it.broker.connack = 0x87
        it.broker.hang_up()
        await until(lambda: not it.condition("mqtt")["ok"], "no connection")
        refusal = Refusal(boot_id=7, seq=3, reason="over_size")
        it.kafka.events.put_nowait([_event(KeyRequest(boot_id=7, seq=3)), _event(_probes()), _event(refusal)])
        await until(it.kafka.events.empty, "taken")
        await asyncio.sleep(0.02)  # time to send it, if it did
        assert it.metric("key_requests_total") == it.metric("probe_requests_total") == 0


async def test_messages_that_arrive_during_a_linger_are_read_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch, linger_ms=50, linger_adapts=False) as it:
        for seq in range(0, 6, 2):
            it.broker.publish(FRAMES, frame(seq), seq + 1)
            await asyncio.sleep(0.01)  # the bridge has read it and lingers
            it.broker.publish(FRAMES, frame(seq + 1), seq + 2)
            await until(lambda: it.broker.acknowledged == list(range(1, seq + 3)), "both acknowledged")  # noqa: B023


async def test_a_stop_delivers_acknowledges_confirms_and_says_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch, linger_ms=10_000, linger_adapts=False, confirm_interval_ms=60_000) as it:
        for seq in range(3):
            it.broker.publish(FRAMES, frame(seq), seq + 1)
        it.broker.publish(FRAMES, b"no frame", 9)
        await asyncio.sleep(0.1)  # the bridge has read them and lingers
        assert not it.kafka.batches
        it.stop.set()
        await until(lambda: it.kafka.batches, "what waits is sent", 5)
        await asyncio.wait_for(it.task, 30)
        await until(lambda: it.broker.count(DISCONNECT) == 1, "a goodbye")
        assert it.broker.acknowledged == [1, 2, 3, 9]
        assert it.broker.packets[-1][0] & 0xF0 == DISCONNECT & 0xF0  # nothing follows a goodbye
        assert it.confirmed() == [0, 1, 2]
        assert it.metric("messages_total", channel="frame", outcome="forwarded") == 3
        assert [producer.running for producer in it.kafka.producers] == [False]
        assert not any(client.running for client in [*it.kafka.consumers, *it.kafka.admins])


async def test_a_bridge_that_stops_reads_nothing_more_while_it_waits_for_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch, batch_bytes=FRAME_BYTES) as it:
        it.kafka.answers.clear()
        for seq in range(3):
            it.broker.publish(FRAMES, frame(seq), seq + 1)
        await until(lambda: it.metric("unacknowledged_messages") == 3, "three on the way")
        it.stop.set()
        await asyncio.sleep(0)
        it.broker.publish(FRAMES, frame(3), 4)
        it.kafka.answer_once()
        await until(lambda: it.broker.acknowledged == [1], "one acknowledged")
        await asyncio.sleep(0.05)  # time to read, if it did
        it.kafka.answers.set()
        await asyncio.wait_for(it.task, PATIENCE_S)
        await until(lambda: it.broker.count(DISCONNECT) == 1, "a goodbye")
        assert it.broker.acknowledged == [1, 2, 3]
        assert len(it.kafka.sent(KafkaTopic.FRAMES)) == 3


async def test_a_stop_waits_no_longer_than_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch, shutdown_s=0.1) as it:
        it.kafka.answers.clear()
        it.broker.publish(FRAMES, frame(1), 1)
        await until(lambda: it.kafka.batches, "a batch")
        it.stop.set()
        with structlog.testing.capture_logs() as logs:
            await asyncio.wait_for(it.task, PATIENCE_S)
        assert [
            entry["unacknowledged"] for entry in logs if entry["event"] == "stopped_with_unacknowledged_records"
        ] == [1]
        assert it.broker.acknowledged == []


async def test_a_batch_without_an_answer_shows_in_the_health_until_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "STALL_S", 0.05)
    async with bridged(monkeypatch) as it:
        it.kafka.answers.clear()
        it.broker.publish(FRAMES, frame(1), 1)
        await until(lambda: not it.well(), "a bridge that is not well")
        assert it.condition("kafka") == {"ok": False, "detail": "no acknowledgement"}
        it.kafka.answers.set()
        await until(it.well, "a bridge that is well again")
        assert it.condition("kafka") == {"ok": True, "detail": ""}


async def test_a_batch_that_is_not_acknowledged_in_time_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch, delivery_deadline_s=0.05) as it:
        it.kafka.answers.clear()
        it.broker.publish(FRAMES, frame(1), 1)
        await until(lambda: (it.metric("kafka_errors_total") or 0) > 0, "the batch to be given up")
        it.kafka.answers.set()
        await until(lambda: it.broker.acknowledged == [1], "acknowledged")


@pytest.mark.parametrize("error", [KafkaError("out of order"), OSError("connection lost"), RuntimeError("a defect")])
async def test_a_batch_that_fails_is_sent_again_by_a_new_producer(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async with bridged(monkeypatch) as it:
        said: list[tuple[str, bool, str]] = []
        monkeypatch.setattr(it.health, "set", lambda *told: said.append((*told, "")[:3]))
        it.kafka.refusals.append(error)
        it.broker.publish(FRAMES, frame(1), 1)
        await until(lambda: it.broker.acknowledged == [1], "acknowledged")
        assert ("kafka", False, f"pointillist.frames.v1: {error!r}") in said
        assert said[-1] == ("kafka", True, "")
        assert len(it.kafka.batches) == 2
        assert [producer.running for producer in it.kafka.producers] == [False, True]
        assert it.metric("kafka_errors_total") == 1


async def test_a_record_that_kafka_takes_in_no_batch_becomes_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch) as it:
        it.kafka.refusals.extend([MessageSizeTooLargeError("too large")] * 2)
        for seq in range(2):
            it.broker.publish(FRAMES, frame(seq), seq + 1)
        await until(lambda: it.broker.acknowledged == [1, 2], "both acknowledged")
        assert it.metric("kafka_errors_total") == 2
        letters = [DeadLetter.FromString(record.value) for record in it.kafka.sent(KafkaTopic.DEAD_LETTERS)]
        assert [letter.camera_id for letter in letters] == [CAMERA]
        assert f"Kafka refused {len(frame(0))} bytes" in letters[0].error
        # A refused batch leaves a gap in the numbers of its producer, which gets nothing more through.
        assert [producer.running for producer in it.kafka.producers] == [False, False, True]
        assert len(it.kafka.sent(KafkaTopic.FRAMES)) == 1
        await until(lambda: it.metric("messages_total", channel="frame", outcome="dead_lettered") == 1, "counted")
        await until(lambda: it.metric("messages_total", channel="frame", outcome="forwarded") == 1, "the other one")


async def test_a_bridge_whose_kafka_says_nothing_is_not_well_from_its_start_on(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = KafkaStandIn()
    kafka.reachable.clear()
    async with bridged(monkeypatch, kafka=kafka, ready=False) as it:
        await until(lambda: kafka.producers, "a try")
        await asyncio.sleep(0.05)  # several intervals
        assert it.condition("kafka") == {"ok": False, "detail": "not connected yet"}
        assert len(kafka.producers) == 1
        kafka.reachable.set()
        await until(it.well, "a bridge that is well")


@pytest.mark.parametrize("error", [KafkaError("no broker"), AssertionError("7 should be at most 2")])
async def test_a_bridge_reads_no_message_before_kafka_answers_sensibly(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    kafka = KafkaStandIn()
    kafka.away = error
    kafka.unknown.append(UnknownTopicOrPartitionError("not yet"))
    async with bridged(monkeypatch, kafka=kafka, ready=False) as it:
        await until(lambda: len(kafka.producers) > 2, "several tries")
        assert it.condition("kafka")["ok"] is False
        assert it.condition("kafka")["detail"] == "no answer from nowhere:1: KafkaError"
        assert it.broker.connects == []
        assert not any(producer.running for producer in kafka.producers)
        assert all(producer.ended for producer in kafka.producers[:-1])
        kafka.away = None
        await until(it.well, "a bridge that is well")
        assert kafka.asked[:2] == [("partitions", "pointillist.frames.v1")] * 2
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


async def test_a_topic_that_is_missing_shows_in_the_health(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = KafkaStandIn()
    kafka.unknown.extend(UnknownTopicOrPartitionError("not yet") for _ in range(200))
    async with bridged(monkeypatch, kafka=kafka, ready=False) as it:
        await until(lambda: "expected topic" in str(it.condition("kafka")["detail"]), "the topic named")
        assert it.condition("kafka")["ok"] is False
        assert it.condition("kafka")["detail"] == "expected topic pointillist.frames.v1: UnknownTopicOrPartitionError"
        kafka.unknown.clear()
        await until(it.well, "a bridge that is well")


async def _hears(it: Running, seq: int) -> None:
    it.kafka.events.put_nowait([_event(KeyRequest(boot_id=7, seq=seq))])
    await until(lambda: it.metric("key_requests_total") == seq, "heard")


def _readers(it: Running) -> list[Consumer]:
    """The clients that read events."""
    return [consumer for consumer in it.kafka.consumers if consumer.topics]


async def test_requests_are_heard_from_now_on_and_again_after_kafka_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridged(monkeypatch) as it:
        await _hears(it, 1)
        (reader,) = _readers(it)
        assert reader.topics == ["pointillist.events.v1"]
        assert reader.options["client_id"] == "b1-requests"
        assert reader.options["auto_offset_reset"] == "latest"
        with structlog.testing.capture_logs() as logs:
            for _ in range(requests_module.LOG_AFTER - 1):
                it.kafka.events.put_nowait(KafkaError("away"))
            await until(lambda: len(_readers(it)) == requests_module.LOG_AFTER and _readers(it)[-1].running, "a reader")
            await _hears(it, 2)
            assert logs == []
            for _ in range(requests_module.LOG_AFTER + 1):
                it.kafka.events.put_nowait(KafkaError("away"))
            await until(it.kafka.events.empty, "all failures met")
            await _hears(it, 3)
        assert [entry["event"] for entry in logs] == ["requests_not_read"]
        assert [reader.running for reader in _readers(it)] == [False] * (len(_readers(it)) - 1) + [True]


async def test_confirmations_wait_while_the_backlog_is_not_read_and_frames_lost_meanwhile_get_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kafka = KafkaStandIn(partitions=1)
    kafka.committed = {0: 0}
    async with bridged(monkeypatch, kafka=kafka, credit_frames=1) as it:
        await until(lambda: it.kafka.asked.count(("offsets", "pointillist-processors")) > 2, "the backlog known")
        for seq in range(3):
            it.broker.publish(FRAMES, frame(seq), seq + 1)
        await until(lambda: it.confirmed() == [0], "one confirmed")
        (follower,) = [consumer for consumer in kafka.consumers if not consumer.topics]
        assert {each.options["client_id"] for each in (follower, *kafka.admins)} == {"b1-backlog"}
        assert ("coordinator", "pointillist-processors") in kafka.asked

        async def broken(*_: object) -> None:
            raise AttributeError("a controller that is not known")

        with structlog.testing.capture_logs() as logs, monkeypatch.context() as patched:
            patched.setattr("tests.producers.kafka_stand_in.Admin._send_request", broken)
            await until(lambda: len(kafka.admins) > 5, "asked again")
            assert it.confirmed() == [0]
            assert it.health.report()[1]["lag"]["ok"] is False
            said = [entry["event"] for entry in logs]
            del kafka.log[KafkaTopic.FRAMES.value, 0][2:]
        assert said == ["lag_not_read"]
        kafka.committed = {0: 2}
        await until(lambda: it.confirmed() == [0, 1], "the kept one confirmed")
        assert it.health.report()[1]["lag"]["ok"] is True
        it.broker.publish(FRAMES, frame(2), 4)
        await until(lambda: it.broker.acknowledged == [1, 2, 3, 4], "the resend acknowledged")
        assert [record.value for record in kafka.log[KafkaTopic.FRAMES.value, 0]] == [frame(0), frame(1), frame(2)]
        assert not any(client.running for client in [*kafka.admins[:-2], follower])
