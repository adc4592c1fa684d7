"""The Kafka record of each MQTT message: a frame, an event, or a dead letter with its reason."""

from __future__ import annotations

import math
import time
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.bridge import records as records_module
from producers.bridge.confirmations import Receipt
from producers.bridge.records import MAX_ORIGIN_CHARACTERS, Record, RecordFactory, stamp_records
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from schemas.limits import DEAD_LETTER_PAYLOAD_BYTES, MAX_ANNOUNCEMENT_BYTES
from schemas.messages.frame import Encoding, encode_frame, sign_message
from schemas.pointillist_pb2 import DeadLetter, Ledger, Meta, Range, State, Status
from schemas.runtime import trace
from schemas.runtime.spans import parsed, root
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


def ledger(**fields: object) -> bytes:
    values: dict[str, object] = {"boot_id": 9, "revision": 1, "next": 10} | fields
    return sign_message(KEYS.key(CAMERA, 0), Ledger(**values))  # type: ignore[arg-type]  # fields of several types


def separate_ranges(count: int) -> list[Range]:
    """Return ranges of one frame each with gaps between them."""
    return [Range(first=3 * n, last=3 * n) for n in range(count)]


def letter(record: Record) -> DeadLetter:
    assert record.topic is KafkaTopic.DEAD_LETTERS
    assert record.receipt is None
    return DeadLetter.FromString(record.value)


def test_a_frame_is_forwarded_unchanged_with_its_cameras_key_and_its_identity_in_the_headers() -> None:
    payload = frame(seq=5)
    record = RecordFactory("b1", BRIDGE_KEYS).accept(topic(Channel.FRAME), payload)
    assert (record.topic, record.key, record.value) == (KafkaTopic.FRAMES, b"hall/door", payload)
    assert record.receipt == Receipt(CAMERA, 0xB007, 0, 5)
    assert dict(record.headers) == {
        "ce_specversion": b"1.0",
        "ce_type": b"pointillist.v1.Frame",
        "ce_source": b"/cameras/hall/door",
        "ce_id": b"000000000000b007/5",
        "content-type": b"application/protobuf",
    }


def test_a_traced_frame_has_the_flag_and_a_bridge_with_spans_adds_its_own_span() -> None:
    payload = encode_frame(KEYS.key(CAMERA, 0), 0xB007, 5, 1000, PICTURE, Encoding(16), traced=True)
    accept = RecordFactory("b1", BRIDGE_KEYS).accept
    sent = root("hall/door/000000000000b007/5", sampled=True)
    assert dict(accept(topic(Channel.FRAME), payload).headers)["traceparent"] == sent.header()
    trace.begin_spans(lambda _: None)
    try:
        own = parsed(dict(accept(topic(Channel.FRAME), payload).headers)["traceparent"])
    finally:
        trace.end_spans()
    assert own is not None
    assert (own.trace_id, own.sampled) == (sent.trace_id, True)
    assert own.span_id != sent.span_id


def test_only_some_frames_are_followed_of_a_camera_that_traces_every_frame() -> None:
    def flag(seq: int) -> bytes:
        payload = encode_frame(KEYS.key(CAMERA, 0), 0xB007, seq, 1000, PICTURE, Encoding(16), traced=True)
        return dict(accept(topic(Channel.FRAME), payload).headers)["traceparent"][-2:]

    accept = RecordFactory("b1", BRIDGE_KEYS).accept
    trace.begin_spans(lambda _: None)
    try:
        flags = [flag(seq) for seq in range(200)]
    finally:
        trace.end_spans()
    assert flags[0] == b"01"
    assert b"00" in flags


@pytest.mark.parametrize(
    ("channel", "message", "receipt"),
    [
        (Channel.EVENT, Ledger(boot_id=9, revision=4, first=0, next=10), Receipt(CAMERA, 9, 1, -1, 4)),
        (Channel.STATUS, Status(state=State.ONLINE, boot_id=1), None),
        (Channel.META, Meta(width=32, boot_id=1), None),
    ],
)
def test_ledgers_and_announcements_become_events_of_their_camera_and_equal_ones_have_one_id(
    channel: Channel, message: Ledger | Status | Meta, receipt: Receipt | None
) -> None:
    payload = sign_message(KEYS.key(CAMERA, 1), message)
    first, second = (RecordFactory(name, BRIDGE_KEYS).accept(topic(channel), payload) for name in ("b1", "b2"))
    assert first[:3] == (KafkaTopic.EVENTS, b"hall/door", payload)
    assert (first.receipt, first.origin, first.channel) == (receipt, mqtt_topic(CAMERA, channel), channel.value)
    headers = dict(first.headers)
    assert headers["ce_type"] == f"pointillist.v1.{type(message).__name__}".encode()
    assert headers["ce_source"] == b"/cameras/hall/door"
    digest = blake2b(payload, digest_size=16).hexdigest().encode()
    assert headers["ce_id"] == (b"0000000000000009/ledger/4" if receipt else digest)
    assert headers["ce_id"] == dict(second.headers)["ce_id"]


@pytest.mark.parametrize(
    ("mqtt_name", "payload", "reason"),
    [
        (topic(Channel.FRAME), b"", "malformed"),
        (topic(Channel.FRAME), b"\xff" * 50, "malformed"),
        (topic(Channel.FRAME), frame()[:-1] + b"\0", "bad_tag"),
        (topic(Channel.FRAME, CameraId("hall/gate")), frame(), "bad_tag"),
        (topic(Channel.FRAME, CameraId("hall/stolen")), frame(camera_id=CAMERA), "revoked_key"),
        (topic(Channel.EVENT), frame(), "bad_tag"),
        (topic(Channel.EVENT), Ledger(boot_id=1, revision=1).SerializeToString() + b"\x79" + bytes(8), "bad_tag"),
        (topic(Channel.EVENT), sign_message(KEYS.key(CAMERA, 0), Ledger(boot_id=2**63, revision=1)), "malformed"),
        (topic(Channel.EVENT), ledger(boot_id=0), "malformed"),
        (topic(Channel.EVENT), ledger(revision=0), "malformed"),
        (topic(Channel.EVENT), ledger(next=2**50), "malformed"),
        (topic(Channel.EVENT), ledger(next=10_000, shed=separate_ranges(65)), "malformed"),
        (topic(Channel.EVENT), ledger(next=90_000, shed=separate_ranges(30_000)), "malformed"),
        (topic(Channel.STATUS), b"\xff", "malformed"),
        (topic(Channel.STATUS), Status(boot_id=1).SerializeToString(), "bad_tag"),
        (topic(Channel.META), Meta(boot_id=1, probe_share=0.5).SerializeToString(), "bad_tag"),
        (topic(Channel.META, CameraId("hall/gate")), sign_message(KEYS.key(CAMERA, 0), Meta(boot_id=1)), "bad_tag"),
        (topic(Channel.META), sign_message(KEYS.key(CAMERA, 0), Meta(boot_id=1, probe_share=math.nan)), "malformed"),
        (topic(Channel.META), bytes(MAX_ANNOUNCEMENT_BYTES + 1), "bad_size"),
        (topic(Channel.STATUS), sign_message(KEYS.key(CAMERA, 0), Status(boot_id=1, detail="x" * 4096)), "bad_size"),
        (topic(Channel.CONFIRM), b"", "malformed"),
        (b"pointillist/v1/hall/door/nonsense", frame(), "malformed"),
        (b"pointillist/v1/Hall/door/frame", frame(), "malformed"),
        (b"pointillist/v1/\xff\xfe/door/frame", frame(), "malformed"),
        (b"elsewhere", frame(), "malformed"),
    ],
)
def test_a_rejected_message_becomes_a_dead_letter_with_the_reason(
    mqtt_name: bytes, payload: bytes, reason: str
) -> None:
    record = RecordFactory("b1", BRIDGE_KEYS).accept(mqtt_name, payload)
    found = letter(record)
    assert (found.stage, found.reason, found.verified) == ("bridge", reason, False)
    assert found.origin_topic == mqtt_name.decode(errors="replace")
    assert (found.origin_partition, found.origin_offset) == (-1, -1)
    assert (found.payload, found.payload_bytes) == (payload[:DEAD_LETTER_PAYLOAD_BYTES], len(payload))
    assert "expected " in found.error or reason != "malformed"
    assert found.error
    assert dict(record.headers)["ce_type"] == b"pointillist.v1.DeadLetter"


def test_a_dead_letter_has_its_origin_and_the_start_of_its_payload_and_its_own_id() -> None:
    before_ms = time.time_ns() // 10**6
    payload = b"\xff" * 1_000_000
    factory = RecordFactory("b1", BRIDGE_KEYS)
    first, second = (factory.accept(topic(Channel.FRAME), payload) for _ in range(2))
    assert (first.key, first.origin, first.channel) == (b"hall/door", mqtt_topic(CAMERA, Channel.FRAME), "frame")
    headers = dict(first.headers)
    boot, _, number = headers.pop("ce_id").decode().partition("/")
    assert (len(boot), int(boot, 16) >= 0, number) == (16, True, "1")
    assert dict(second.headers)["ce_id"] == f"{boot}/2".encode()
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_type": b"pointillist.v1.DeadLetter",
        "ce_source": b"/bridges/b1",
        "content-type": b"application/protobuf",
    }
    found = letter(first)
    assert found.camera_id == CAMERA
    assert found.ByteSize() < DEAD_LETTER_PAYLOAD_BYTES + 1000
    assert before_ms <= found.at_ms <= time.time_ns() // 10**6


def test_a_dead_letter_of_an_unknown_topic_has_no_camera_and_no_channel() -> None:
    record = RecordFactory("b1", BRIDGE_KEYS).accept(b"elsewhere", b"payload")
    assert (record.key, record.channel, record.origin, letter(record).camera_id) == (b"", "unknown", "elsewhere", "")


def test_an_announcement_at_the_size_limit_is_not_rejected_for_its_size() -> None:
    found = letter(RecordFactory("b1", BRIDGE_KEYS).accept(topic(Channel.META), bytes(MAX_ANNOUNCEMENT_BYTES)))
    assert found.reason != "bad_size"


def test_invented_topics_use_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "ROUTES", 10)
    factory = RecordFactory("b1", BRIDGE_KEYS)
    for number in range(100):
        factory.accept(f"pointillist/v1/x/{number}/frame".encode(), b"")
    assert len(factory._routes) == 10
    assert factory.accept(topic(Channel.FRAME), frame()).topic is KafkaTopic.FRAMES


def test_a_topic_of_another_form_is_not_cached_and_its_dead_letter_has_its_beginning() -> None:
    factory = RecordFactory("b1", BRIDGE_KEYS)
    for number in range(5):
        record = factory.accept(f"pointillist/v1/{'x' * 60_000}/{number}/frame".encode(), b"")
        assert letter(record).origin_topic == f"pointillist/v1/{'x' * 60_000}"[:MAX_ORIGIN_CHARACTERS]
        assert len(record.value) < 1000
        assert len(record.origin) == MAX_ORIGIN_CHARACTERS
    factory.accept(b"pointillist/v1/hall/door/" + bytes(60_000), b"")
    assert not factory._routes


def test_the_longest_name_of_a_camera_is_complete_in_a_dead_letter() -> None:
    longest = CameraId(f"{'s' * 63}/{'c' * 63}")
    assert letter(RecordFactory("b1", BRIDGE_KEYS).accept(topic(Channel.SETTINGS, longest), b"")).origin_topic.endswith(
        "settings"
    )


def test_a_payload_that_raises_an_unexpected_exception_becomes_a_dead_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(records_module, "open_frame", broken)
    found = letter(RecordFactory("b1", BRIDGE_KEYS).accept(topic(Channel.FRAME), frame()))
    assert (found.reason, found.error) == ("malformed", "RuntimeError: a defect")


def test_a_record_rejected_by_kafka_becomes_a_dead_letter_of_its_camera() -> None:
    factory = RecordFactory("b1", BRIDGE_KEYS)
    record = factory.accept(topic(Channel.FRAME), frame())
    refused = factory.refused_by_kafka(record, "x" * 10_000)
    assert refused.receipt == record.receipt
    assert factory.refused_by_kafka(refused, "too large").receipt is None
    assert (refused.key, refused.origin, refused.channel) == (b"hall/door", record.origin, "frame")
    found = DeadLetter.FromString(refused.value)
    assert (found.reason, found.camera_id, found.origin_topic) == ("bad_size", CAMERA, "pointillist/v1/hall/door/frame")
    assert found.payload == record.value
    assert 0 < len(found.error) < 10_000


def test_a_frame_in_a_dead_letter_is_not_traced_as_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    stamped: list[object] = []
    monkeypatch.setattr(trace, "stamp", lambda what, *frames: stamped.extend(frames))
    factory = RecordFactory("b1", BRIDGE_KEYS)
    record = factory.accept(topic(Channel.FRAME), frame())
    stamp_records("stored", [record, factory.refused_by_kafka(record, "too large")])
    assert len(stamped) == 1


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.binary(max_size=80))
def test_random_bytes_on_any_topic_become_a_dead_letter(mqtt_name: bytes, payload: bytes) -> None:
    factory = RecordFactory("b1", BRIDGE_KEYS)
    for name in (mqtt_name, topic(Channel.FRAME)):
        assert factory.accept(name, payload).topic is KafkaTopic.DEAD_LETTERS


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_changed_frame_becomes_a_dead_letter(data: st.DataObject) -> None:
    payload = bytearray(frame())
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at] ^= data.draw(st.integers(1, 255))
    assert (
        RecordFactory("b1", BRIDGE_KEYS).accept(topic(Channel.FRAME), bytes(payload)).topic is KafkaTopic.DEAD_LETTERS
    )
