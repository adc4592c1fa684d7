"""The metrics of a process that runs cameras."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge

from schemas import metrics
from schemas.pixels.temporal_encoder import Coded, KeyCause


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
    cameras: Gauge
    spool_frames: Gauge
    spool_bytes: Gauge
    spool_oldest_s: Gauge
    damaged_frames: Counter
    damaged_ledgers: Counter
    key_frames: Counter
    delta_frames: Counter
    blocks_sent: Counter
    blocks_unchanged: Counter
    reconnects: Counter
    source_restarts: Counter

    @classmethod
    def on(cls, registry: CollectorRegistry) -> Instruments:
        """Register them, every series at zero."""
        frames, size = metrics.CAMERA_FRAMES.on(registry), metrics.CAMERA_BYTES.on(registry)
        damaged = metrics.SPOOL_DAMAGED.on(registry)
        restarts, blocks = metrics.SOURCE_RESTARTS.on(registry), metrics.CAMERA_BLOCKS.on(registry)
        key_frames = metrics.CAMERA_KEY_FRAMES.on(registry)
        for reason in KeyCause:
            key_frames.labels(reason.value)
        for cause in ("hung", "failed"):
            restarts.labels(cause)
        return cls(
            published=frames.labels("published"),
            confirmed=frames.labels("confirmed"),
            resent=frames.labels("resent"),
            shed=frames.labels("shed"),
            skipped=frames.labels("skipped"),
            still=frames.labels("still"),
            raw_bytes=size.labels("raw"),
            sent_bytes=size.labels("sent"),
            resent_bytes=size.labels("resent"),
            cameras=metrics.CAMERAS.on(registry),
            spool_frames=metrics.SPOOL_FRAMES.on(registry),
            spool_bytes=metrics.SPOOL_BYTES.on(registry),
            spool_oldest_s=metrics.SPOOL_OLDEST.on(registry),
            damaged_frames=damaged.labels("frame"),
            damaged_ledgers=damaged.labels("ledger"),
            key_frames=key_frames,
            delta_frames=metrics.CAMERA_DELTA_FRAMES.on(registry),
            blocks_sent=blocks.labels("sent"),
            blocks_unchanged=blocks.labels("unchanged"),
            reconnects=metrics.CAMERA_RECONNECTS.on(registry),
            source_restarts=restarts,
        )

    def coded(self, frame: Coded) -> None:
        """A frame of the profile `temporal` was published, and is no probe."""
        if frame.cause is not None:
            self.key_frames.labels(frame.cause.value).inc()
        else:
            self.delta_frames.inc()
            self.blocks_sent.inc(frame.blocks_sent)
            self.blocks_unchanged.inc(frame.blocks - frame.blocks_sent)
