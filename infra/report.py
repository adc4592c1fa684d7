"""The reports of a run and of an audit: every count from durable records."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, TypedDict

from consumers.conservation.law import Lost
from consumers.database.damage import UNREADABLE
from consumers.database.queries import Accuracy, open_records
from infra.audit import Audit
from infra.layout import Layout


class Attacked(TypedDict):
    """How one camera that the red team attacked fared."""

    frames: int
    """Its frames under an attack whose truth is known."""
    accuracy: float | None
    """Share of right classes among them."""
    accuracy_clean: float | None
    """Share of right classes among its other frames."""


class Latency(TypedDict):
    """From capture to record, in seconds."""

    p50: float | None
    """Median."""
    p95: float | None
    """95th percentile."""
    p99: float | None
    """99th percentile."""


@dataclass(frozen=True)
class Measured:
    """What the database says of the run's frames; each is null where that cannot be read, or where there is nothing."""

    frames_measured: int
    """Recorded frames that the bounded database still holds: what follows is of them."""
    bytes_raw: int
    """As captured."""
    bytes_sent: int
    """As messages, first sends only, MQTT's own header apart."""
    wire_overhead_bytes_per_frame: float | None
    """Bytes of the message beside the pixels."""
    latency_s: Latency
    """From capture to record, in seconds."""
    latency_negative: int
    """Frames from the future, by their cameras' clocks."""
    frames_per_second: float | None
    """Recorded frames over the time from the first capture to the last record."""
    accuracy: float | None
    """Share of right classes where the truth is known and nobody attacks."""
    accuracy_with_sticker: float | None
    """The same of frames with a sticker."""
    frames_attacked: int
    """Frames under an attack whose truth is known; they are in `accuracy_attacked` alone."""
    accuracy_attacked: float | None
    """Share of right classes among them."""
    attacked_by_camera: dict[str, Attacked]
    """The same of each attacked camera."""
    strip_checked: int
    """Frames that STRIP has checked."""
    strip_shed: int
    """Frames that were to be checked when its queue was full."""
    strip_flagged: int
    """Checked frames whose entropy lay below the threshold."""
    strip_frr: float | None
    """Of the checked frames without a sticker, the share that was flagged, where the truth is known and nobody
    attacks."""
    strip_far: float | None
    """Of those with one, the share that was not."""
    alerts: int
    """Alerts raised, one for an episode of a camera."""
    alerts_by_camera: dict[str, int]
    """The same of each camera that had any."""


@dataclass(frozen=True)
class Run:
    """What only the run itself knows."""

    startup_s: float
    """From the command to the moment at which the cameras start."""
    restarts: dict[str, int]
    """How often each role was started again."""
    unread: list[str]
    """What could not be read, one line each."""


@dataclass(frozen=True)
class Findings:
    """What `pointillist audit` says besides the counts."""

    kafka_frames: int
    """Records of the frames topic that Kafka still holds, resends included."""
    covers_from_ms: int | None
    """When the oldest boot began that the records still cover, Unix time in milliseconds; null where there is none."""
    ledgers_refused: int
    """Ledgers that no camera has signed: what they claim is not counted."""
    lost: list[Lost]
    """Which frames are lost."""
    unread: list[str]
    """What could not be read, one line each; all else is counted."""
    attacked_by_camera: dict[str, Attacked] | None
    """How each camera that the red team attacked fared; null where that cannot be read."""


def audit_report(found: Audit, attacked: dict[str, Attacked] | None) -> dict[str, Any]:
    """What `pointillist audit --json` prints: the fields of `Counts` and `Findings`."""
    findings = Findings(
        kafka_frames=found.kafka_frames,
        covers_from_ms=found.frames_from_ms,
        ledgers_refused=len(found.ledgers_refused),
        lost=[
            Lost(camera_id=boot.camera_id, boot_id=f"{boot.boot_id:016x}", ranges=list(boot.lost.ranges()))
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
    """What the boots that started at `since_ms` or later did: the fields of `Counts`, `Measured` and `Run`."""
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
        return dict.fromkeys(each.name for each in fields(Measured))
    measured = Measured(
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
        attacked_by_camera={camera: beside_clean(found) for camera, found in attacked.items()},
        strip_checked=strip.checked,
        strip_shed=strip.shed,
        strip_flagged=strip.flagged,
        strip_frr=share(truth.clean_flagged, truth.clean),
        strip_far=share(truth.sticker - truth.sticker_flagged, truth.sticker),
        alerts=alerts,
        alerts_by_camera=alerted,
    )
    return asdict(measured)


def attacked_by_camera(database_url: str) -> dict[str, Attacked] | None:
    """Of all frames in a database: how each camera that the red team attacked fared; None where that is unread."""
    try:
        with open_records(database_url) as records:
            return {camera: beside_clean(found) for camera, found in records.accuracy_under_attack().items()}
    except UNREADABLE:
        return None


def beside_clean(found: Accuracy) -> Attacked:
    """One camera's frames under an attack: how many, the share of them that was right, and that of its clean ones."""
    return {
        "frames": found.attacked,
        "accuracy": share(found.attacked_correct, found.attacked),
        "accuracy_clean": share(found.clean_correct, found.clean),
    }


def share(part: float, whole: float) -> float | None:
    """`part` ÷ `whole`; None of nothing."""
    return part / whole if whole else None
