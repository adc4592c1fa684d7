"""The report of a run: every count from durable records."""

from __future__ import annotations

from typing import Any, Final

from consumers.database.damage import UNREADABLE
from consumers.database.queries import Accuracy, open_records
from infra.audit import Audit
from infra.layout import Layout

_MEASURED: Final = (
    "frames_measured", "bytes_raw", "bytes_sent", "wire_overhead_bytes_per_frame", "latency_s", "latency_negative",
    "frames_per_second", "accuracy", "accuracy_with_sticker", "frames_attacked", "accuracy_attacked",
    "attacked_by_camera", "strip_checked", "strip_shed", "strip_flagged", "strip_frr", "strip_far", "alerts",
    "alerts_by_camera",
)  # fmt: skip


def report(
    found: Audit, layout: Layout, since_ms: int, foreign_before: int, startup_s: float, restarts: dict[str, int]
) -> dict[str, Any]:
    """What the boots that started at `since_ms` or later did, by the names that `docs/operations.md` explains.

    `bytes_sent` counts first sends only, MQTT's own header apart; `latency_s` is capture to record. Sums, latency and
    accuracy are of the `frames_measured` that the bounded database still holds. `strip_frr` is the share of checked
    frames without a sticker that were flagged, `strip_far` the share of those with one that were not; frames under an
    attack are in neither, and in `accuracy_attacked` alone. What the database does not give is None.
    """
    return {
        **found.counts(since_ms).as_dict(),
        "frames_foreign": found.foreign - foreign_before,
        **_measured(found, layout, since_ms),
        "startup_s": startup_s,
        "restarts": restarts,
        "unread": list(found.unread),
    }


def _measured(found: Audit, layout: Layout, since_ms: int) -> dict[str, Any]:
    boots = [(boot.camera_id, boot.boot_id) for boot in found.boots if boot.started_ms >= since_ms]
    try:
        with open_records(layout.database_url) as records:
            sums = records.byte_sums(of=boots)
            latency = records.latency_quantiles(of=boots)
            strip = records.strip_counts(of=boots)
            accuracy = records.accuracy(of=boots)
            span_s = records.span_s(boots)
            alerts = records.alert_count(since_ms)
            alerted = records.alerts_by_camera(since_ms)
            truth = records.strip_truth(of=boots)
            attacked = records.accuracy_under_attack(of=boots)
    except UNREADABLE:
        return dict.fromkeys(_MEASURED)
    return {
        "frames_measured": sums.frames,
        "bytes_raw": sums.raw_bytes,
        "bytes_sent": sums.frame_bytes,
        "wire_overhead_bytes_per_frame": share(sums.frame_bytes - sums.pixel_bytes, sums.frames),
        "latency_s": {"p50": latency.p50, "p95": latency.p95, "p99": latency.p99},
        "latency_negative": latency.negative,
        "frames_per_second": share(sums.frames, span_s),
        "accuracy": share(accuracy.clean_correct, accuracy.clean),
        "accuracy_with_sticker": share(accuracy.sticker_correct, accuracy.sticker),
        "frames_attacked": accuracy.attacked,
        "accuracy_attacked": share(accuracy.attacked_correct, accuracy.attacked),
        "attacked_by_camera": {camera: beside_clean(found) for camera, found in attacked.items()},
        "strip_checked": strip.checked,
        "strip_shed": strip.shed,
        "strip_flagged": strip.flagged,
        "strip_frr": share(truth.clean_flagged, truth.clean),
        "strip_far": share(truth.sticker - truth.sticker_flagged, truth.sticker),
        "alerts": alerts,
        "alerts_by_camera": alerted,
    }


def attacked_by_camera(database_url: str) -> dict[str, dict[str, float | None]] | None:
    """Of all frames in a database: how each camera that the red team attacked fared; None where that is unread."""
    try:
        with open_records(database_url) as records:
            return {camera: beside_clean(found) for camera, found in records.accuracy_under_attack().items()}
    except UNREADABLE:
        return None


def beside_clean(found: Accuracy) -> dict[str, float | None]:
    """One camera's frames under an attack: how many, the share of them that was right, and that of its clean ones."""
    return {
        "frames": found.attacked,
        "accuracy": share(found.attacked_correct, found.attacked),
        "accuracy_clean": share(found.clean_correct, found.clean),
    }


def share(part: float, whole: float) -> float | None:
    """`part` ÷ `whole`; None of nothing."""
    return part / whole if whole else None
