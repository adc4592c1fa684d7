from __future__ import annotations

import math
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.bridge import records as intake_module
from producers.bridge.confirmations import Receipt
from producers.bridge.records import MAX_EVENT_BYTES, MAX_ORIGIN_CHARACTERS, Record, RecordFactory
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from schemas.limits import DEAD_LETTER_PAYLOAD_BYTES, MAX_CONTROL_BYTES
from schemas.messages.frame import Encoding, encode_frame, sign_message
from schemas.pointillist_pb2 import DeadLetter, Ledger, Meta, Range, State, Status
from schemas.topics import Channel, KafkaTopic, mqtt_topic

SECRET = b"a fleet secret of thirty-two byte"
KEYS = KeyRing(SECRET, {"hall/stolen": 3})
BRIDGE_KEYS = KeyRing(Roots.of_fleet(SECRET).of(Role.BRIDGE), {"hall/stolen": 3})
CAMERA = CameraId("hall/door")
PICTURE = np.random.default_rng(1).integers(0, 256, (16, 24, 3), np.uint8)


def topic(channel: Channel, camera_id: CameraId = CAMERA) -> bytes:
    return mqtt_topic(camera_id, channel).encode()


def frame(seq: int = 5, camera_id: CameraId = CAMERA, generation: int = 0) -> bytes:
    return encode_frame(KEYS.key(camera_id, generation), 0xB007, seq, 1000, PICTURE, Encoding(16))


def letter(record: Record) -> DeadLetter:
    assert record.topic is KafkaTopic.DEAD_LETTERS
    assert record.receipt is None
    return DeadLetter.FromString(record.value)


def test_a_frame_goes_on_unchanged_under_its_camera_with_its_identity_in_the_headers() -> None:
    payload = frame(seq=5)
    record = RecordFactory("b1", BRIDGE_KEYS).accept(topic(Channel.FRAME), payload)
    trace = blake2b(b"hall/door/000000000000b007/5", digest_size=16).hexdigest()
    assert (record.topic, record.key, record.value) == (KafkaTopic.FRAMES, b"hall/door", payload)
    assert record.receipt == Receipt(CAMERA, 0xB007, 0, 5)
    headers = dict(record.headers)
    version, trace_id, span_id, flags = headers.pop("traceparent").decode().split("-")
    assert (version, trace_id, flags) == ("00", trace, "01")
    assert len(span_id) == 16
    assert int(span_id, 16)
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_type": b"pointillist.v1.Frame",
        "ce_source": b"/cameras/hall/door",
        "ce_id": b"000000000000b007/5",
        "content-type": b"application/protobuf",
    }


def test_a_ledger_goes_to_the_events_and_is_confirmed_by_its_revision() -> None:
    payload = sign_message(KEYS.key(CAMERA, 1), Ledger(boot_id=9, revision=4, first=0, next=10))
    record = RecordFactory("b1", BRIDGE_KEYS).accept(topic(Channel.EVENT), payload)
    assert record.topic is KafkaTopic.EVENTS
    assert record.receipt == Receipt(CAMERA, 9, 1, -1, 4)
    assert dict(record.headers)["ce_type"] == b"pointillist.v1.Ledger"
    assert dict(record.headers)["ce_id"] == b"0000000000000009/ledger/4"


@pytest.mark.parametrize(
    ("channel", "message"),
    [(Channel.STATUS, Status(state=State.ONLINE, boot_id=1)), (Channel.META, Meta(width=32, boot_id=1))],
)
def test_status_and_meta_go_to_the_events_unconfirmed_and_equal_ones_are_one_event(
    channel: Channel, message: Status | Meta
) -> None:
    payload = sign_message(KEYS.key(CAMERA, 0), message)
    first, second = (RecordFactory(name, BRIDGE_KEYS).accept(topic(channel), payload) for name in ("b1", "b2"))
    assert first.topic is KafkaTopic.EVENTS
    assert first.receipt is None
    assert dict(first.headers)["ce_type"] == f"pointillist.v1.{type(message).__name__}".encode()
    assert dict(first.headers)["ce_id"] == dict(second.headers)["ce_id"]


@pytest.mark.parametrize(
    ("where", "payload", "reason"),
    [
        (topic(Channel.FRAME), b"", "malformed"),
        (topic(Channel.FRAME), b"\xff" * 50, "malformed"),
        (topic(Channel.FRAME), frame()[:-1] + b"\0", "bad_tag"),
        (topic(Channel.FRAME, CameraId("hall/gate")), frame(), "bad_tag"),
        (topic(Channel.FRAME, CameraId("hall/stolen")), frame(camera_id=CAMERA), "revoked_key"),
        (topic(Channel.EVENT), frame(), "bad_tag"),
        (topic(Channel.EVENT), Ledger(boot_id=1, revision=1).SerializeToString() + b"\x79" + bytes(8), "bad_tag"),
        (topic(Channel.EVENT), sign_message(KEYS.key(CAMERA, 0), Ledger(boot_id=2**63, revision=1)), "malformed"),
        (topic(Channel.STATUS), b"\xff", "malformed"),
        (topic(Channel.STATUS), Status(boot_id=1).SerializeToString(), "bad_tag"),
        (topic(Channel.META), Meta(boot_id=1, probe_share=0.5).SerializeToString(), "bad_tag"),
        (topic(Channel.META, CameraId("hall/gate")), sign_message(KEYS.key(CAMERA, 0), Meta(boot_id=1)), "bad_tag"),
        (topic(Channel.META), sign_message(KEYS.key(CAMERA, 0), Meta(boot_id=1, probe_share=math.nan)), "malformed"),
        (topic(Channel.META), bytes(MAX_EVENT_BYTES + 1), "bad_size"),
        (topic(Channel.CONFIRM), b"", "malformed"),
        (b"pointillist/v1/hall/door/nonsense", frame(), "malformed"),
        (b"pointillist/v1/Hall/door/frame", frame(), "malformed"),
        (b"pointillist/v1/\xff\xfe/door/frame", frame(), "malformed"),
        (b"elsewhere", frame(), "malformed"),
    ],
)
def test_what_is_refused_becomes_a_dead_letter_that_says_why(where: bytes, payload: bytes, reason: str) -> None:
    record = RecordFactory("b1", BRIDGE_KEYS).accept(where, payload)
    found = letter(record)
    assert (found.stage, found.reason, found.verified) == ("bridge", reason, False)
    assert found.origin_topic == where.decode(errors="replace")
    assert (found.origin_partition, found.origin_offset) == (-1, -1)
    assert (found.payload, found.payload_bytes) == (payload[:DEAD_LETTER_PAYLOAD_BYTES], len(payload))
    assert "expected " in found.error or reason != "malformed"
    assert found.error
    assert dict(record.headers)["ce_type"] == b"pointillist.v1.DeadLetter"


def test_a_dead_letter_keeps_only_the_beginning_of_a_large_payload() -> None:
    found = letter(RecordFactory("b1", BRIDGE_KEYS).accept(topic(Channel.FRAME), b"\xff" * 1_000_000))
    assert found.ByteSize() < DEAD_LETTER_PAYLOAD_BYTES + 1000
    assert found.payload_bytes == 1_000_000


def test_equal_refused_payloads_are_two_dead_letters() -> None:
    intake = RecordFactory("b1", BRIDGE_KEYS)
    ids = {dict(intake.accept(topic(Channel.FRAME), b"x").headers)["ce_id"] for _ in range(2)}
    assert len(ids) == 2


def test_topics_made_up_by_strangers_cost_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "ROUTES", 10)
    intake = RecordFactory("b1", BRIDGE_KEYS)
    for number in range(100):
        intake.accept(f"pointillist/v1/x/{number}/frame".encode(), b"")
    assert len(intake._routes) == 10
    assert intake.accept(topic(Channel.FRAME), frame()).topic is KafkaTopic.FRAMES


def test_a_topic_that_is_none_of_ours_is_not_remembered_and_its_dead_letter_has_its_beginning() -> None:
    intake = RecordFactory("b1", BRIDGE_KEYS)
    for number in range(5):
        record = intake.accept(f"pointillist/v1/{'x' * 60_000}/{number}/frame".encode(), b"")
        assert letter(record).origin_topic == f"pointillist/v1/{'x' * 60_000}"[:MAX_ORIGIN_CHARACTERS]
        assert len(record.value) < 1000
        assert len(record.origin) == MAX_ORIGIN_CHARACTERS
    intake.accept(b"pointillist/v1/hall/door/" + bytes(60_000), b"")
    assert not intake._routes


def test_the_longest_name_of_a_camera_is_whole_in_a_dead_letter() -> None:
    longest = CameraId(f"{'s' * 63}/{'c' * 63}")
    assert letter(RecordFactory("b1", BRIDGE_KEYS).accept(topic(Channel.SETTINGS, longest), b"")).origin_topic.endswith(
        "settings"
    )


def test_a_ledger_above_the_limit_is_refused() -> None:
    shed = [Range(first=3 * n, last=3 * n) for n in range(30_000)]
    payload = sign_message(KEYS.key(CAMERA, 0), Ledger(boot_id=9, revision=1, next=90_000, shed=shed))
    assert len(payload) > MAX_CONTROL_BYTES
    assert letter(RecordFactory("b1", BRIDGE_KEYS).accept(topic(Channel.EVENT), payload)).reason == "malformed"


def test_a_payload_that_finds_a_defect_is_dead_lettered_rather_than_redelivered_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(intake_module, "open_frame", broken)
    found = letter(RecordFactory("b1", BRIDGE_KEYS).accept(topic(Channel.FRAME), frame()))
    assert (found.reason, found.error) == ("malformed", "RuntimeError: a defect")


def test_a_record_that_kafka_refuses_becomes_a_dead_letter_of_its_camera() -> None:
    intake = RecordFactory("b1", BRIDGE_KEYS)
    record = intake.accept(topic(Channel.FRAME), frame())
    found = letter(intake.refused_by_kafka(record, "too large"))
    assert (found.reason, found.camera_id, found.origin_topic) == ("bad_size", CAMERA, "pointillist/v1/hall/door/frame")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_payload_on_any_topic_is_a_record_and_never_a_frame(where: bytes, payload: bytes) -> None:
    intake = RecordFactory("b1", BRIDGE_KEYS)
    for name in (where, topic(Channel.FRAME)):
        assert intake.accept(name, payload).topic is KafkaTopic.DEAD_LETTERS


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_changed_frame_never_passes_as_a_frame(data: st.DataObject) -> None:
    payload = bytearray(frame())
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at] ^= data.draw(st.integers(1, 255))
    assert (
        RecordFactory("b1", BRIDGE_KEYS).accept(topic(Channel.FRAME), bytes(payload)).topic is KafkaTopic.DEAD_LETTERS
    )
