"""Every field of what the bridge writes to Kafka."""

from __future__ import annotations

import time
from hashlib import blake2b

import pytest

from producers.bridge.confirmations import Receipt
from producers.bridge.records import MAX_EVENT_BYTES, RecordFactory
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.limits import DEAD_LETTER_PAYLOAD_BYTES
from schemas.messages.frame import sign_message
from schemas.pointillist_pb2 import DeadLetter, Ledger, Meta, Range, Status
from schemas.topics import Channel, KafkaTopic, mqtt_topic

KEYS = KeyRing(b"a fleet secret of thirty-two byte")
CAMERA = CameraId("hall/door")
KEY = KEYS.current(CAMERA)


def topic(channel: Channel) -> str:
    return mqtt_topic(CAMERA, channel)


@pytest.mark.parametrize(
    ("channel", "message"), [(Channel.STATUS, Status(boot_id=1)), (Channel.META, Meta(boot_id=1, width=32))]
)
def test_an_announcement_is_an_event_under_its_camera_named_by_its_content(
    channel: Channel, message: Status | Meta
) -> None:
    payload = sign_message(KEY, message)
    record = RecordFactory("b1", KEYS).accept(topic(channel).encode(), payload)
    assert record[:3] == (KafkaTopic.EVENTS, b"hall/door", payload)
    assert (record.receipt, record.origin, record.channel) == (None, topic(channel), channel.value)
    assert dict(record.headers)["ce_id"] == blake2b(payload, digest_size=16).hexdigest().encode()
    assert dict(record.headers)["ce_source"] == b"/cameras/hall/door"


def test_a_ledger_is_an_event_under_its_camera_with_its_receipt() -> None:
    payload = sign_message(KEY, Ledger(boot_id=1, revision=1, next=10))
    record = RecordFactory("b1", KEYS).accept(topic(Channel.EVENT).encode(), payload)
    assert record[:3] == (KafkaTopic.EVENTS, b"hall/door", payload)
    assert record.receipt == Receipt(CAMERA, 1, 0, -1, 1)
    assert (record.origin, record.channel) == (topic(Channel.EVENT), "event")


@pytest.mark.parametrize(("boot", "revision"), [(0, 1), (2**63, 1), (1, 0)])
def test_a_ledger_of_no_boot_or_revision_is_a_dead_letter(boot: int, revision: int) -> None:
    payload = sign_message(KEY, Ledger(boot_id=boot, revision=revision))
    record = RecordFactory("b1", KEYS).accept(topic(Channel.EVENT).encode(), payload)
    assert DeadLetter.FromString(record.value).reason == "malformed"


def test_an_announcement_is_as_large_as_it_may_be() -> None:
    reasons = []
    for size in (MAX_EVENT_BYTES, MAX_EVENT_BYTES + 1):
        record = RecordFactory("b1", KEYS).accept(topic(Channel.META).encode(), bytes(size))
        reasons.append(DeadLetter.FromString(record.value).reason)
    assert reasons[0] != "bad_size"
    assert reasons[1] == "bad_size"


def test_a_dead_letter_says_where_its_payload_came_from_and_keeps_its_beginning() -> None:
    before_ms = time.time_ns() // 10**6
    payload = b"\xff" * (DEAD_LETTER_PAYLOAD_BYTES + 7)
    intake = RecordFactory("b1", KEYS)
    records = [intake.accept(topic(Channel.FRAME).encode(), payload) for _ in range(2)]
    first = records[0]
    assert (first.topic, first.key, first.receipt) == (KafkaTopic.DEAD_LETTERS, b"hall/door", None)
    assert (first.origin, first.channel) == (topic(Channel.FRAME), "frame")
    headers = dict(first.headers)
    boot, _, number = headers.pop("ce_id").decode().partition("/")
    assert (len(boot), int(boot, 16) >= 0, number) == (16, True, "1")
    assert dict(records[1].headers)["ce_id"] == f"{boot}/2".encode()
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_type": b"pointillist.v1.DeadLetter",
        "ce_source": b"/bridges/b1",
        "content-type": b"application/protobuf",
    }
    letter = DeadLetter.FromString(first.value)
    assert (letter.camera_id, letter.stage, letter.origin_topic) == (CAMERA, "bridge", topic(Channel.FRAME))
    assert (letter.payload, letter.payload_bytes) == (payload[:DEAD_LETTER_PAYLOAD_BYTES], len(payload))
    assert before_ms <= letter.at_ms <= time.time_ns() // 10**6


def test_a_record_that_kafka_refuses_is_a_dead_letter_under_its_camera() -> None:
    intake = RecordFactory("b1", KEYS)
    record = intake.accept(topic(Channel.META).encode(), sign_message(KEY, Meta(boot_id=1)))
    refused = intake.refused_by_kafka(record, "x" * 10_000)
    assert (refused.topic, refused.key, refused.receipt) == (KafkaTopic.DEAD_LETTERS, b"hall/door", None)
    assert (refused.origin, refused.channel) == (record.origin, "meta")
    letter = DeadLetter.FromString(refused.value)
    assert (letter.reason, letter.payload) == ("bad_size", record.value)
    assert 0 < len(letter.error) < 10_000


def test_a_stranger_has_no_camera_and_no_channel() -> None:
    record = RecordFactory("b1", KEYS).accept(b"elsewhere", b"payload")
    assert (record.key, record.channel, record.origin) == (b"", "unknown", "elsewhere")
    assert DeadLetter.FromString(record.value).camera_id == ""


@pytest.mark.parametrize(
    "said",
    [
        Ledger(boot_id=1, revision=1, next=10_000, shed=[Range(first=2 * n, last=2 * n) for n in range(65)]),
        Ledger(boot_id=1, revision=1, next=40_000, shed=[Range(first=2 * n, last=2 * n) for n in range(10_000)]),
        Ledger(boot_id=1, revision=1, next=2**50),
    ],
)
def test_a_ledger_that_no_spool_writes_is_a_dead_letter_and_is_not_confirmed(said: Ledger) -> None:
    record = RecordFactory("b1", KEYS).accept(topic(Channel.EVENT).encode(), sign_message(KEY, said))
    assert (record.topic, record.receipt) == (KafkaTopic.DEAD_LETTERS, None)
    assert DeadLetter.FromString(record.value).reason == "malformed"
