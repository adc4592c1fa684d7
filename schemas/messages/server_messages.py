"""Servers' signed statements about frames and cameras: verdicts, dead letters, alerts and comparisons, with sealed
pictures.

Kafka's readers accept nothing else: write access to a topic is not enough to forge a processor's or a recorder's
statement.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Final, TypeAlias, TypeVar

from google.protobuf.message import DecodeError

from schemas.errors import BadTagError, MalformedError
from schemas.identity import CameraId, Identity
from schemas.keys.keys import KeyRing
from schemas.keys.sealing import PreviewBox
from schemas.keys.tags import Purpose, Tagger
from schemas.pointillist_pb2 import Alert, Comparison, DeadLetter, Verdict

PREVIEW: Final = "preview"
EVIDENCE: Final = "evidence"
AS_SENT: Final = "as sent"
THUMBNAIL: Final = "thumbnail"
DIFFERENCE: Final = "difference"

AnyStatement: TypeAlias = Verdict | DeadLetter | Alert | Comparison
Statement = TypeVar("Statement", Verdict, DeadLetter, Alert, Comparison)
_PURPOSES: Final[dict[type[AnyStatement], Purpose]] = {
    Verdict: Purpose.VERDICT,
    DeadLetter: Purpose.DEAD_LETTER,
    Alert: Purpose.ALERT,
    Comparison: Purpose.COMPARISON,
}


def _tagger(kind: type[AnyStatement], keys: KeyRing) -> Tagger:
    return keys.alerts if kind is Alert else keys.verdicts


def sign_statement(keys: KeyRing, camera_id: str, message: AnyStatement) -> bytes:
    """Serialise and sign a message about a camera."""
    kind = type(message)
    message.ClearField("tag")
    return _tagger(kind, keys).signed(_PURPOSES[kind], camera_id, message.SerializeToString())


def check_statement(kind: type[AnyStatement], camera_id: str, payload: bytes, keys: KeyRing) -> None:
    """Raise `BadTagError` unless `payload` was signed as a message of this kind about the camera."""
    if not _tagger(kind, keys).holds(_PURPOSES[kind], camera_id, payload):
        raise BadTagError(f"the tag of the {kind.__name__} about {camera_id[:140]} is not that of this fleet")


def open_statement(kind: type[Statement], camera_id: str, payload: bytes, keys: KeyRing) -> Statement:
    """Verify a message, then parse it."""
    check_statement(kind, camera_id, payload, keys)
    try:
        return kind.FromString(payload)
    except DecodeError:
        raise MalformedError(f"expected a pointillist.v1.{kind.__name__}") from None


def seal_pictures(verdict: Verdict, camera_id: CameraId, keys: KeyRing) -> None:
    """Seal the preview, the evidence and the picture as it was sent that a verdict carries."""
    frame = Identity(camera_id, verdict.boot_id, verdict.seq)
    verdict.preview = keys.previews.seal(verdict.preview, frame, PREVIEW)
    verdict.evidence = keys.previews.seal(verdict.evidence, frame, EVIDENCE)
    verdict.as_sent = keys.previews.seal(verdict.as_sent, frame, AS_SENT)


def open_pictures(verdict: Verdict, camera_id: CameraId, keys: KeyRing) -> None:
    """Open a verdict's pictures, or remove them without the key; `MalformedError` if they belong to another frame."""
    if not (verdict.preview or verdict.evidence or verdict.as_sent):
        return
    if not keys.reads_previews:
        verdict.preview = verdict.evidence = verdict.as_sent = b""
        return
    frame = Identity(camera_id, verdict.boot_id, verdict.seq)
    verdict.preview = keys.previews.open(verdict.preview, frame, PREVIEW)
    verdict.evidence = keys.previews.open(verdict.evidence, frame, EVIDENCE)
    verdict.as_sent = keys.previews.open(verdict.as_sent, frame, AS_SENT)


def seal_difference(comparison: Comparison, camera_id: CameraId, keys: KeyRing) -> None:
    """Seal the picture of a comparison."""
    frame = Identity(camera_id, comparison.boot_id, comparison.seq)
    comparison.picture = keys.previews.seal(comparison.picture, frame, DIFFERENCE)


def open_difference(comparison: Comparison, camera_id: CameraId, keys: KeyRing) -> None:
    """Open the picture of a comparison, or remove it without the key; MalformedError if it is another frame's."""
    if not keys.reads_previews:
        comparison.picture = b""
    if comparison.picture:
        frame = Identity(camera_id, comparison.boot_id, comparison.seq)
        comparison.picture = keys.previews.open(comparison.picture, frame, DIFFERENCE)


def sealed_alert(alert: Alert, keys: KeyRing) -> bytes:
    """Return an alert's record value: its thumbnail sealed, all of it signed."""
    sent = deepcopy(alert)
    seal_thumbnail(sent, keys.previews)
    return sign_statement(keys, alert.camera_id, sent)


def open_alert(camera_id: str, payload: bytes, keys: KeyRing) -> Alert:
    """Verify and parse an alert from Kafka; open its thumbnail if `keys` can."""
    alert = open_statement(Alert, camera_id, payload, keys)
    if keys.reads_previews:
        open_thumbnail(alert, keys.previews)
    else:
        alert.thumbnail = b""
    return alert


def seal_thumbnail(alert: Alert, box: PreviewBox) -> None:
    """Seal the thumbnail of an alert."""
    alert.thumbnail = box.seal(alert.thumbnail, _of_alert(alert), THUMBNAIL)


def open_thumbnail(alert: Alert, box: PreviewBox) -> None:
    """Open the thumbnail of an alert; `MalformedError` if it belongs to another alert's frames or another key."""
    alert.thumbnail = box.open(alert.thumbnail, _of_alert(alert), THUMBNAIL)


def _of_alert(alert: Alert) -> Identity:
    return Identity(CameraId(alert.camera_id), alert.boot_id, alert.frames.last)
