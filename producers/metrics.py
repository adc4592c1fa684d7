"""The metrics of a process that runs cameras."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from schemas import metrics


class Instruments:
    """One set for all cameras of a process. Every series is at zero at first."""

    def __init__(self, registry: CollectorRegistry) -> None:
        frames, size = metrics.CAMERA_FRAMES.on(registry), metrics.CAMERA_BYTES.on(registry)
        damaged = metrics.SPOOL_DAMAGED.on(registry)
        self.published = frames.labels("published")
        self.confirmed = frames.labels("confirmed")
        self.resent = frames.labels("resent")
        self.shed = frames.labels("shed")
        self.skipped = frames.labels("skipped")
        self.still = frames.labels("no_motion")
        self.raw_bytes = size.labels("raw")
        self.sent_bytes = size.labels("sent")
        self.resent_bytes = size.labels("resent")
        self.compared = metrics.CAMERA_COMPARED.on(registry)
        self.camera_tasks = metrics.CAMERA_TASKS.on(registry)
        self.spool_frames = metrics.SPOOL_FRAMES.on(registry)
        self.spool_bytes = metrics.SPOOL_BYTES.on(registry)
        self.spool_oldest_s = metrics.SPOOL_OLDEST.on(registry)
        self.damaged_frames = damaged.labels("frame")
        self.damaged_ledgers = damaged.labels("ledger")
        self.reconnects = metrics.CAMERA_RECONNECTS.on(registry)
        self.source_restarts = metrics.SOURCE_RESTARTS.on(registry)
        for cause in ("hung", "failed"):
            self.source_restarts.labels(cause)
