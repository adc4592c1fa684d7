"""Rows of the table `alerts`. Their thumbnails are sealed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from consumers.records.rows import Window, windows_text
from schemas.errors import MalformedError
from schemas.keys.sealing import PreviewBox
from schemas.messages.server_messages import open_thumbnail, seal_thumbnail
from schemas.pointillist_pb2 import Alert

_PNG: Final = b"\x89PNG\r\n\x1a\n"
"""The beginning of a thumbnail that an earlier release stored without a seal. A sealed one begins at random."""

log = structlog.get_logger()


def stored_alert(message: bytes, box: Callable[[], PreviewBox]) -> Alert:
    """Return the alert in the column `message` with its thumbnail, or without if that cannot be opened.

    `box` returns the cipher. It is called for a sealed thumbnail only. Raises DecodeError for another message.
    """
    alert = Alert.FromString(message)
    if alert.thumbnail and not alert.thumbnail.startswith(_PNG):
        try:
            open_thumbnail(alert, box())
        except MalformedError as error:
            log.warning("thumbnail_not_opened", alert_id=alert.alert_id, error=str(error))
            alert.thumbnail = b""
    return alert


def alert_row(alert: Alert, partition: int, box: PreviewBox) -> dict[str, object]:
    """Return the row of an alert that Kafka has not confirmed yet.

    `partition` is the partition of the camera's verdicts if the alert is a sighting; 0 for other kinds. `box` seals the
    thumbnail in the row; that of `alert` stays as it is.
    """
    return {
        "alert_id": alert.alert_id,
        "camera": alert.camera_id,
        "boot": alert.boot_id,
        "kind": alert.kind,
        "raised_ms": alert.raised_ms,
        "first": alert.frames.first,
        "last": alert.frames.last,
        "checked": alert.checked,
        "flagged": alert.flagged,
        "mean_entropy_bits": alert.mean_entropy_bits,
        "threshold_bits": alert.threshold_bits,
        "baseline_bits": alert.baseline_bits,
        "evidence_octaves": alert.evidence_octaves,
        "mean_p_value": alert.mean_p_value,
        "p_value_threshold": alert.p_value_threshold,
        "baseline_p_value": alert.baseline_p_value,
        "statistic": alert.statistic,
        "window": _window_text(alert),
        "message": _sealed_message(alert, box),
        "published": False,
        "wanted": alert.wanted,
        "confidence": alert.confidence,
        "ended_ms": 0,
        "partition": partition,
    }


def _sealed_message(alert: Alert, box: PreviewBox) -> bytes:
    stored = Alert()
    stored.CopyFrom(alert)
    seal_thumbnail(stored, box)
    return stored.SerializeToString()


def _window_text(alert: Alert) -> str:
    found = alert.window
    if not alert.HasField("window"):
        return ""
    return windows_text([Window(found.left, found.top, found.right, found.bottom, found.dependence)])
