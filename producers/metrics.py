"""The metrics of a process that runs cameras."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge

from schemas import metrics


@dataclass(frozen=True)
class Instruments:
    """One set for all cameras of a process."""

    published: Counter
    confirmed: Counter
    resent: Counter
    shed: Counter
    skipped: Counter
    still: Counter
    raw_bytes: Counter
    sent_bytes: Counter
    resent_bytes: Counter
    compared: Counter
    camera_tasks: Gauge
    spool_frames: Gauge
    spool_bytes: Gauge
    spool_oldest_s: Gauge
    damaged_frames: Counter
    damaged_ledgers: Counter
    reconnects: Counter
    source_restarts: Counter

    @classmethod
    def on(cls, registry: CollectorRegistry) -> Instruments:
        """Register the metrics, with every series at zero."""
        frames, size = metrics.CAMERA_FRAMES.on(registry), metrics.CAMERA_BYTES.on(registry)
        damaged = metrics.SPOOL_DAMAGED.on(registry)
        restarts = metrics.SOURCE_RESTARTS.on(registry)
        for cause in ("hung", "failed"):
            restarts.labels(cause)
        return cls(
            published=frames.labels("published"),
            confirmed=frames.labels("confirmed"),
            resent=frames.labels("resent"),
            shed=frames.labels("shed"),
            skipped=frames.labels("skipped"),
            still=frames.labels("no_motion"),
            raw_bytes=size.labels("raw"),
            sent_bytes=size.labels("sent"),
            resent_bytes=size.labels("resent"),
            compared=metrics.CAMERA_COMPARED.on(registry),
            camera_tasks=metrics.CAMERA_TASKS.on(registry),
            spool_frames=metrics.SPOOL_FRAMES.on(registry),
            spool_bytes=metrics.SPOOL_BYTES.on(registry),
            spool_oldest_s=metrics.SPOOL_OLDEST.on(registry),
            damaged_frames=damaged.labels("frame"),
            damaged_ledgers=damaged.labels("ledger"),
            reconnects=metrics.CAMERA_RECONNECTS.on(registry),
            source_restarts=restarts,
        )
