from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.harness.recorder_store import MadeRecord
from consumers.records import batch as batches
from consumers.records.batch import frame_row, read
from consumers.records.log import named, stamp_gathered
from consumers.settings import RecorderSettings
from schemas.errors import SecretError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing, Purpose
from schemas.limits import DEAD_LETTER_PAYLOAD_BYTES
from schemas.messages.server_messages import sign_statement
from schemas.pointillist_pb2 import DeadLetter, Meta, Status, Verdict
from tests.consumers.recorder_rig import (
    BOOT,
    CAMERA,
    KEYS,
    SECRET,
    dead_letter,
    ledger,
    sign_as_processor,
    signed,
    verdict,
)

SETTINGS = RecorderSettings(kafka="127.0.0.1:1")


def _record(
    topic: str, value: bytes, *, key: bytes = CAMERA.encode(), kind: str = "Ledger", offset: int = 7
) -> MadeRecord:
    return MadeRecord(topic, 1, offset, key, value, [("ce_type", f"pointillist.v1.{kind}".encode())])


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([SETTINGS.verdicts_topic, SETTINGS.events_topic, SETTINGS.dead_letters_topic]),
    st.binary(max_size=60),
    st.binary(max_size=20) | st.just(CAMERA.encode()),
    st.sampled_from(["Ledger", "Status", "Meta", "Frame", ""]),
)
def test_any_record_is_accepted_or_becomes_a_dead_letter(topic: str, value: bytes, key: bytes, kind: str) -> None:
    batch = read([_record(topic, value, key=key, kind=kind)], SETTINGS, KEYS, 5)
    assert batch.offsets == {(topic, 1): (7, 8)}
    accepted = len(batch.verdicts) + len(batch.ledgers) + len(batch.statuses) + len(batch.metas) + len(batch.letters)
    assert accepted == 1


def test_a_header_without_a_value_affects_only_its_own_record() -> None:
    null = MadeRecord(SETTINGS.events_topic, 1, 7, CAMERA.encode(), b"x", [("ce_type", None)])
    sound = MadeRecord(SETTINGS.verdicts_topic, 1, 7, CAMERA.encode(), sign_as_processor(verdict(1)), [("ce_id", None)])
    sound.headers = [*sound.headers, ("traceparent", None)]
    stamp_gathered([null, sound])
    assert named(sound) == ""
    batch = read([null, sound], SETTINGS, KEYS, 5)
    assert [seq for _, _, seq in batch.verdicts] == [1]
    (row,) = batch.letters.values()
    assert (row.topic, row.offset, row.reason) == (SETTINGS.events_topic, 7, "malformed")
    assert "ce_type" in row.error


def test_an_unexpected_error_affects_one_record_and_a_wrong_secret_rejects_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_verdict, failure = batches._add_verdict, Exception()

    def failing(batch: batches.Batch, record: batches.Record, *other: Any) -> None:
        if record.offset == 8:
            raise failure
        add_verdict(batch, record, *other)

    monkeypatch.setattr(batches, "_add_verdict", failing)
    records = [_record(SETTINGS.verdicts_topic, sign_as_processor(verdict(seq)), offset=7 + seq) for seq in range(3)]
    failure = TypeError("a defect")
    batch = read(records, SETTINGS, KEYS, 5)
    assert [seq for _, _, seq in batch.verdicts] == [0, 2]
    assert batch.offsets == {(SETTINGS.verdicts_topic, 1): (7, 10)}
    (row,) = batch.letters.values()
    assert (row.offset, row.verified, row.error) == (8, False, "TypeError: a defect")
    failure = SecretError("the secret: expected the recorder's, got another")
    with pytest.raises(SecretError):
        read(records, SETTINGS, KEYS, 5)


def test_an_invalid_verdict_is_rejected_with_the_expected_form() -> None:
    for bad in (
        sign_as_processor(verdict(0, boot=2**63)),
        sign_as_processor(Verdict(seq=4)),
        sign_as_processor(verdict(2**53)),
        KEYS.verdicts.signed(Purpose.VERDICT, CAMERA, b"\xff\xff"),
    ):
        (row,) = read([_record(SETTINGS.verdicts_topic, bad)], SETTINGS, KEYS, 5).letters.values()
        assert (row.stage, row.reason, row.verified) == ("recorder", "malformed", False)
        assert "expected" in row.error


def test_a_verdict_with_a_confidence_of_nan_is_recorded() -> None:
    row = frame_row((CAMERA, BOOT, 1), verdict(1, confidence=math.nan, entropy_bits=math.inf), 5)
    assert (row.confidence, row.entropy_bits) == (0.0, 0.0)


@pytest.mark.parametrize(("named", "scene"), [(None, -1), (0, 0), (2**53 - 1, 2**53 - 1), (2**53, -1)])
def test_a_verdict_without_a_possible_scene_has_none(named: int | None, scene: int) -> None:
    assert frame_row((CAMERA, BOOT, 1), verdict(1, scene=named), 5).scene == scene


def test_a_request_for_a_key_frame_is_left_to_the_bridges() -> None:
    batch = read([_record(SETTINGS.events_topic, b"\x09", kind="KeyRequest")], SETTINGS, KEYS, 5)
    assert batch.offsets == {(SETTINGS.events_topic, 1): (7, 8)}
    assert not batch.letters


@pytest.mark.parametrize("message", [Status(boot_id=BOOT, detail="x" * 4096), Meta(boot_id=BOOT, source="x" * 4096)])
def test_an_announcement_above_the_size_limit_is_rejected(message: Status | Meta) -> None:
    kind = type(message).__name__
    batch = read([_record(SETTINGS.events_topic, signed(message), kind=kind)], SETTINGS, KEYS, 5)
    assert not batch.statuses
    assert not batch.metas
    (row,) = batch.letters.values()
    assert f"expected a {kind} of at most 4096 bytes" in row.error


def test_a_ledger_that_contradicts_itself_is_rejected() -> None:
    for bad in (ledger(0, 5), ledger(1, 5, [(3, 5)]), ledger(1, 5, [(3, 2)]), ledger(2**63, 5)):
        batch = read([_record(SETTINGS.events_topic, signed(bad))], SETTINGS, KEYS, 5)
        assert not batch.ledgers
        assert len(batch.letters) == 1


def test_a_ledger_whose_key_was_revoked_while_it_waited_in_kafka_is_recorded() -> None:
    keys = KeyRing(SECRET, {CAMERA: 1})
    batch = read([_record(SETTINGS.events_topic, signed(ledger(1, 5)))], SETTINGS, keys, 5)
    assert (list(batch.ledgers), batch.letters) == ([(CAMERA, BOOT)], {})


def test_a_hostile_dead_letter_is_cut_to_bounds_that_any_database_accepts() -> None:
    hostile = DeadLetter(
        origin_topic="t" * 100_000,
        stage="\0stage" * 1000,
        reason="r" * 1000,
        error="\0" * 100_000,
        camera_id="c" * 100_000,
        boot_id=2**64 - 1,
        seq=2**64 - 1,
        payload=b"p" * 100_000,
        payload_bytes=2**64 - 1,
        at_ms=2**64 - 1,
    )
    (row,) = read(
        [_record(SETTINGS.dead_letters_topic, hostile.SerializeToString())], SETTINGS, KEYS, 5
    ).letters.values()
    assert len(row.payload) == DEAD_LETTER_PAYLOAD_BYTES
    assert row.stored_bytes < DEAD_LETTER_PAYLOAD_BYTES + 2000
    assert all(value < 2**63 for value in row if isinstance(value, int))
    assert not any("\0" in value for value in row if isinstance(value, str))


def test_a_verified_dead_letter_without_an_identity_counts_as_foreign() -> None:
    for bad in (dead_letter(1, verified=True, boot=2**63), dead_letter(1, verified=True, camera_id="no camera")):
        (row,) = read(
            [_record(SETTINGS.dead_letters_topic, sign_as_processor(bad))], SETTINGS, KEYS, 5
        ).letters.values()
        assert (row.stage, row.verified) == ("recorder", False)


def test_a_verdict_without_a_valid_signature_is_not_recorded() -> None:
    made = verdict(1)
    stranger = KeyRing(b"the secret of another fleet")
    signed_by_camera = KEYS.current(CameraId(CAMERA)).sign(Purpose.VERDICT, made.SerializeToString())
    another_cameras = sign_as_processor(made, "lab/gate")
    for forged in (made.SerializeToString(), sign_statement(stranger, CAMERA, made), signed_by_camera, another_cameras):
        batch = read([_record(SETTINGS.verdicts_topic, forged)], SETTINGS, KEYS, 5)
        assert not batch.verdicts
        (row,) = batch.letters.values()
        assert (row.stage, row.reason, row.verified) == ("recorder", "bad_tag", False)


def test_an_earlier_unsigned_verdict_does_not_replace_a_signed_one() -> None:
    records = [
        MadeRecord(SETTINGS.verdicts_topic, 1, 7, CAMERA.encode(), verdict(1, class_id=9).SerializeToString()),
        MadeRecord(SETTINGS.verdicts_topic, 1, 8, CAMERA.encode(), sign_as_processor(verdict(1, class_id=3))),
    ]
    batch = read(records, SETTINGS, KEYS, 5)
    assert [made.class_id for made in batch.verdicts.values()] == [3]
    assert not batch.repeated


def test_a_verified_dead_letter_without_a_valid_signature_is_foreign() -> None:
    letter = dead_letter(1, verified=True)
    stranger = KeyRing(b"the secret of another fleet")
    for forged in (letter.SerializeToString(), sign_statement(stranger, letter.camera_id, letter)):
        batch = read([_record(SETTINGS.dead_letters_topic, forged)], SETTINGS, KEYS, 5)
        (row,) = batch.letters.values()
        assert (row.reason, row.verified) == ("bad_tag", False)


def test_a_verdict_with_undecryptable_pictures_is_recorded_without_them() -> None:
    made = verdict(1)
    made.preview = b"sealed with another key"
    batch = read([_record(SETTINGS.verdicts_topic, sign_statement(KEYS, CAMERA, made))], SETTINGS, KEYS, 5)
    (recorded,) = batch.verdicts.values()
    assert (recorded.seq, recorded.preview) == (1, b"")
    assert not batch.letters
