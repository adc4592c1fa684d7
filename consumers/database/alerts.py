"""Rows of the table `alerts`."""

from __future__ import annotations

from consumers.records.rows import Window, windows_text
from schemas.pointillist_pb2 import Alert


def alert_row(alert: Alert, partition: int) -> dict[str, object]:
    """Return the row of an alert that Kafka has not confirmed yet.

    `partition` is the partition of the camera's verdicts if the alert is a sighting; 0 for other kinds.
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
        "message": alert.SerializeToString(),
        "published": False,
        "wanted": alert.wanted,
        "confidence": alert.confidence,
        "ended_ms": 0,
        "partition": partition,
    }


def _window_text(alert: Alert) -> str:
    found = alert.window
    if not alert.HasField("window"):
        return ""
    return windows_text([Window(found.left, found.top, found.right, found.bottom, found.dependence)])
