"""Signed messages of servers: each is valid only from its role, and its pictures open only for their readers."""

from __future__ import annotations

import pytest

from schemas.errors import BadTagError, MalformedError, SecretError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing, Purpose
from schemas.keys.roots import Role, Roots
from schemas.messages.server_messages import (
    open_alert,
    open_difference,
    open_pictures,
    open_statement,
    seal_difference,
    seal_pictures,
    sealed_alert,
    sign_statement,
)
from schemas.pointillist_pb2 import Alert, Comparison, DeadLetter, Range, Verdict

SECRET = b"a fleet secret of tests"
CAMERA, OTHER = CameraId("site/one"), CameraId("site/two")
RINGS = {role: KeyRing(Roots.of_fleet(SECRET).of(role)) for role in Role}
PROCESSOR, RECORDER, BRIDGE = RINGS[Role.PROCESSOR], RINGS[Role.RECORDER], RINGS[Role.BRIDGE]


def test_a_verdict_is_valid_only_for_its_camera_and_from_a_processor() -> None:
    verdict = Verdict(boot_id=1, seq=2, class_id=3, whole=True)
    signed = sign_statement(PROCESSOR, CAMERA, verdict)
    assert open_statement(Verdict, CAMERA, signed, RECORDER).class_id == 3
    stranger = KeyRing(b"the secret of another fleet")
    signed_by_camera = PROCESSOR.current(CAMERA).sign(Purpose.VERDICT, verdict.SerializeToString())
    for camera, payload in (
        (OTHER, signed),
        (CAMERA, verdict.SerializeToString()),
        (CAMERA, sign_statement(stranger, CAMERA, verdict)),
        (CAMERA, signed_by_camera),
        (CAMERA, PROCESSOR.verdicts.signed(Purpose.DEAD_LETTER, CAMERA, verdict.SerializeToString())),
        (CAMERA, b""),
    ):
        with pytest.raises(BadTagError):
            open_statement(Verdict, camera, payload, RECORDER)
    with pytest.raises(SecretError, match="root key verdicts"):
        sign_statement(BRIDGE, CAMERA, verdict)


def test_signed_bytes_that_are_no_message_are_malformed() -> None:
    payload = PROCESSOR.verdicts.signed(Purpose.VERDICT, CAMERA, b"\xff\xff")
    with pytest.raises(MalformedError, match="Verdict"):
        open_statement(Verdict, CAMERA, payload, RECORDER)


def test_pictures_of_a_verdict_open_for_recorder_and_console_and_not_for_an_auditor() -> None:
    verdict = Verdict(boot_id=1, seq=2, preview=b"a JPEG", evidence=b"a PNG", as_sent=b"with holes")
    seal_pictures(verdict, CAMERA, PROCESSOR)
    signed = sign_statement(PROCESSOR, CAMERA, verdict)
    assert b"JPEG" not in signed
    assert b"PNG" not in signed
    assert b"holes" not in signed
    pictures = b"a JPEG", b"a PNG", b"with holes"
    for role, seen in ((Role.RECORDER, pictures), (Role.CONSOLE, pictures), (Role.AUDITOR, (b"", b"", b""))):
        read = open_statement(Verdict, CAMERA, signed, RINGS[role])
        open_pictures(read, CAMERA, RINGS[role])
        assert (read.preview, read.evidence, read.as_sent) == seen
    swapped = open_statement(Verdict, CAMERA, signed, RECORDER)
    swapped.as_sent = swapped.preview
    with pytest.raises(MalformedError, match="as sent"):
        open_pictures(swapped, CAMERA, RECORDER)


def test_the_picture_of_a_comparison_opens_for_the_console_and_only_with_its_own_frame() -> None:
    for role, seen in ((Role.CONSOLE, b"a JPEG"), (Role.AUDITOR, b"")):
        comparison = Comparison(boot_id=1, seq=2, picture=b"a JPEG")
        seal_difference(comparison, CAMERA, PROCESSOR)
        assert b"JPEG" not in comparison.picture
        open_difference(comparison, CAMERA, RINGS[role])
        assert comparison.picture == seen
    seal_difference(comparison := Comparison(boot_id=1, seq=2, picture=b"a JPEG"), CAMERA, PROCESSOR)
    comparison.seq = 3
    with pytest.raises(MalformedError):
        open_difference(comparison, CAMERA, RINGS[Role.CONSOLE])
    without = Comparison(boot_id=1, seq=2)
    open_difference(without, CAMERA, RINGS[Role.CONSOLE])
    assert without == Comparison(boot_id=1, seq=2)


def test_an_alert_is_signed_by_a_recorder_with_a_sealed_thumbnail() -> None:
    alert = Alert(alert_id="a", camera_id=CAMERA, boot_id=4, frames=Range(first=1, last=9), thumbnail=b"a PNG")
    sent = sealed_alert(alert, RECORDER)
    assert b"PNG" not in sent
    assert alert.thumbnail == b"a PNG"
    read = open_alert(CAMERA, sent, RECORDER)
    read.ClearField("tag")
    assert read == alert
    with pytest.raises(BadTagError):
        open_alert(OTHER, sent, RECORDER)
    with pytest.raises(SecretError, match="root key alerts"):
        sealed_alert(alert, PROCESSOR)


def test_a_dead_letter_must_be_signed() -> None:
    letter = DeadLetter(camera_id=CAMERA, verified=True, boot_id=1, seq=2)
    signed = sign_statement(PROCESSOR, CAMERA, letter)
    assert open_statement(DeadLetter, CAMERA, signed, RECORDER).verified
    with pytest.raises(BadTagError):
        open_statement(DeadLetter, CAMERA, letter.SerializeToString(), RECORDER)
