"""The reports of a run and of an audit: every count from durable records."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, TypedDict

from consumers.conservation.balance import LostFrames
from consumers.database.damage import UNREADABLE
from consumers.database.queries import Accuracy, open_records
from infra.audit.audit import Audit
from infra.state_folder import Layout


class AttackedCamera(TypedDict):
    """The result of one camera that the red team attacked."""

    frames: int
    """Its frames under an attack with known truth."""
    accuracy: float | None
    """Share of right classes among them."""
    accuracy_clean: float | None
    """Share of right classes among its other frames."""


class Latency(TypedDict):
    """Latency from capture to record, in seconds."""

    p50: float | None
    """Median."""
    p95: float | None
    """95th percentile."""
    p99: float | None
    """99th percentile."""


@dataclass(frozen=True)
class RunFigures:
    """Figures of the run's frames from the database; each is null when it cannot be read or has no frames."""

    frames_measured: int
    """Recorded frames that the bounded database still holds; the figures below cover them."""
    bytes_raw: int
    """Bytes of the captured frames."""
    bytes_sent: int
    """Bytes of the messages, first sends only, without MQTT's own header."""
    wire_overhead_bytes_per_frame: float | None
    """Bytes of the messages besides the pixels."""
    latency_s: Latency
    """From capture to record, in seconds."""
    latency_negative: int
    """Frames with a capture time in the future, by their cameras' clocks."""
    frames_per_second: float | None
    """Recorded frames divided by the time from the first capture to the last record."""
    accuracy: float | None
    """Share of right classes among unattacked frames with known truth."""
    accuracy_with_sticker: float | None
    """The same for frames with a sticker."""
    frames_attacked: int
    """Frames under an attack with known truth; only `accuracy_attacked` counts them."""
    accuracy_attacked: float | None
    """Share of right classes among them."""
    attacked_by_camera: dict[str, AttackedCamera]
    """The same for each attacked camera."""
    strip_checked: int
    """Frames that STRIP has checked."""
    strip_shed: int
    """Frames that STRIP skipped because its queue was full."""
    strip_flagged: int
    """Checked frames whose statistic is beyond the threshold of the bundle."""
    strip_frr: float | None
    """Share of flagged frames among the checked, unattacked frames without a sticker and with known truth."""
    strip_far: float | None
    """Share of frames that were not flagged among those with a sticker."""
    alerts: int
    """Alerts raised, one for an episode of a camera."""
    alerts_by_camera: dict[str, int]
    """The same for each camera with any."""


@dataclass(frozen=True)
class Run:
    """Figures from the run itself."""

    startup_s: float
    """Seconds from the command until the cameras start."""
    restarts: dict[str, int]
    """Restarts of each role."""
    unread: list[str]
    """Unreadable records, one line each."""


@dataclass(frozen=True)
class Findings:
    """Findings of `pointillist audit` besides the counts."""

    kafka_frames: int
    """Records of the frames topic that Kafka still holds, resends included."""
    covers_from_ms: int | None
    """Start of the oldest boot that the records still cover, Unix time in milliseconds; null without one."""
    ledgers_refused: int
    """Ledgers without a camera's signature: their claims are not counted."""
    lost: list[LostFrames]
    """The lost frames."""
    unread: list[str]
    """Unreadable records, one line each; all else is counted."""
    attacked_by_camera: dict[str, AttackedCamera] | None
    """Results of each camera that the red team attacked; null when they cannot be read."""


def audit_report(found: Audit, attacked: dict[str, AttackedCamera] | None) -> dict[str, Any]:
    """Return the output of `pointillist audit --json`: the fields of `Counts` and `Findings`."""
    findings = Findings(
        kafka_frames=found.kafka_frames,
        covers_from_ms=found.frames_from_ms,
        ledgers_refused=len(found.ledgers_refused),
        lost=[
            LostFrames(camera_id=boot.camera_id, boot_id=f"{boot.boot_id:016x}", ranges=list(boot.lost.ranges()))
            for boot in found.boots
            if boot.lost
        ],
        unread=list(found.unread),
        attacked_by_camera=attacked,
    )
    return {**found.counts().as_dict(), **asdict(findings)}


def report(
    found: Audit, layout: Layout, since_ms: int, foreign_before: int, startup_s: float, restarts: dict[str, int]
) -> dict[str, Any]:
    """Return the report of the boots that started at `since_ms` or later: the fields of `Counts`, `RunFigures` and
    `Run`."""
    return {
        **found.counts(since_ms).as_dict(),
        "frames_foreign": found.foreign - foreign_before,
        **_measured(found, layout, since_ms),
        **asdict(Run(startup_s, restarts, list(found.unread))),
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
        return dict.fromkeys(each.name for each in fields(RunFigures))
    measured = RunFigures(
        frames_measured=sums.frames,
        bytes_raw=sums.raw_bytes,
        bytes_sent=sums.frame_bytes,
        wire_overhead_bytes_per_frame=share(sums.frame_bytes - sums.pixel_bytes, sums.frames),
        latency_s={"p50": latency.p50, "p95": latency.p95, "p99": latency.p99},
        latency_negative=latency.negative,
        frames_per_second=share(sums.frames, span_s),
        accuracy=share(accuracy.clean_correct, accuracy.clean),
        accuracy_with_sticker=share(accuracy.sticker_correct, accuracy.sticker),
        frames_attacked=accuracy.attacked,
        accuracy_attacked=share(accuracy.attacked_correct, accuracy.attacked),
        attacked_by_camera={camera: with_clean_accuracy(found) for camera, found in attacked.items()},
        strip_checked=strip.checked,
        strip_shed=strip.shed,
        strip_flagged=strip.flagged,
        strip_frr=share(truth.clean_flagged, truth.clean),
        strip_far=share(truth.sticker - truth.sticker_flagged, truth.sticker),
        alerts=alerts,
        alerts_by_camera=alerted,
    )
    return asdict(measured)


def attacked_by_camera(database_url: str) -> dict[str, AttackedCamera] | None:
    """Return each attacked camera's result over all frames in a database; None when it cannot be read."""
    try:
        with open_records(database_url) as records:
            return {camera: with_clean_accuracy(found) for camera, found in records.accuracy_under_attack().items()}
    except UNREADABLE:
        return None


def with_clean_accuracy(found: Accuracy) -> AttackedCamera:
    """Return one camera's attacked frames: their number, their accuracy, and the accuracy of its clean frames."""
    return {
        "frames": found.attacked,
        "accuracy": share(found.attacked_correct, found.attacked),
        "accuracy_clean": share(found.clean_correct, found.clean),
    }


def share(part: float, whole: float) -> float | None:
    """Return `part` ÷ `whole`; None for an empty whole."""
    return part / whole if whole else None
