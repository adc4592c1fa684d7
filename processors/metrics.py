"""The processor's metrics in one place, on an injected registry."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry

from schemas import metrics as contract
from schemas.errors import OverQuotaError, OverSizeError

_STAGES = ("validate", "unpack", "reconstruct", "denoise", "preprocess", "classify", "preview", "strip", "certify")
_VIDEO_OUTCOMES = ("decoded", "restored", "duplicate", "missing", "refused", "crashed", "hung", "reopened")
_ERROR_STAGES = (*_STAGES, "decode", "pictures", "stillness", "drift")
_OPTIONAL = ("preprocess", "certify")
"""Stages that many processors never run: each has a duration from its first batch on."""


class ProcessorMetrics:
    """The processor's metrics. Counters with few label values are created at once: a dashboard then shows zeros."""

    def __init__(self, registry: CollectorRegistry) -> None:
        frames = contract.FRAMES_TOTAL.on(registry)
        self.classified = frames.labels("classified")
        self.dead_lettered = frames.labels("dead_lettered")
        refused = contract.REFUSED.on(registry)
        self.refused = {kind.reason: refused.labels(kind.reason) for kind in (OverSizeError, OverQuotaError)}
        frame_bytes = contract.FRAME_BYTES.on(registry)
        self._raw_bytes = frame_bytes.labels("raw")
        self._sent_bytes = frame_bytes.labels("sent")
        stage = contract.STAGE.on(registry)
        # Without `preprocess`, which most bundles never run: a quantile of no durations is no number.
        self._stages = {name: stage.labels(name) for name in _STAGES if name not in _OPTIONAL}
        self._stage = stage
        errors = contract.STAGE_ERRORS.on(registry)
        self._stage_errors = {name: errors.labels(name) for name in _ERROR_STAGES}
        key_frames, keyed_frames = contract.KEY_FRAMES.on(registry), contract.KEYED_FRAMES.on(registry)
        self.key_frames = {name: key_frames.labels(name) for name in ("received", "recalled", "requested")}
        self.keyed_frames = {name: keyed_frames.labels(name) for name in ("with_key", "waited", "without_key")}
        units = contract.VIDEO_UNITS.on(registry)
        self.video_units = {name: units.labels(name) for name in _VIDEO_OUTCOMES}
        self.video_held_bytes = contract.VIDEO_HELD_BYTES.on(registry)
        self.batch = contract.BATCH.on(registry)
        queue = contract.QUEUE.on(registry)
        self.batch_queue = queue.labels("batch")
        self.decode_queue = queue.labels("decode")
        self.strip_queue = queue.labels("strip")
        self.lag = contract.LAG.on(registry)
        self.unread = contract.UNREAD.on(registry)
        self.paused = contract.PAUSED.on(registry)
        strip = contract.STRIP_FRAMES.on(registry)
        self._strip_checked = strip.labels("checked")
        self._strip_flagged = strip.labels("flagged")
        self.strip_shed = strip.labels("shed")
        self._strip_passes = contract.STRIP_PASSES.on(registry)
        self._strip_entropy = contract.STRIP_ENTROPY.on(registry)
        self._model_info = contract.MODEL_INFO.on(registry)
        self._drift = contract.DRIFT.on(registry)
        self._backend_info = contract.BACKEND_INFO.on(registry)
        swaps = contract.MODEL_SWAPS.on(registry)
        self.model_swaps = {name: swaps.labels(name) for name in ("switched", "refused", "superseded")}
        certificates = contract.CERTIFICATES.on(registry)
        outcomes = ("certified", "uncertified", "failed", "shed")
        self.certificates = {name: certificates.labels(name) for name in outcomes}
        comparisons = contract.COMPARISONS.on(registry)
        self.comparisons = {name: comparisons.labels(name) for name in ("compared", "failed", "dropped")}
        self.model_load = contract.MODEL_LOAD.on(registry)
        self.kafka_damaged = contract.KAFKA_DAMAGED.on(registry).labels("processor")
        self.device_busy = contract.DEVICE_BUSY.on(registry)

    def stage(self, name: str, seconds: float) -> None:
        """Record the duration of a stage for one batch."""
        found = self._stages.get(name)
        if found is None:
            found = self._stages[name] = self._stage.labels(name)
        found.observe(seconds)

    def stage_failed(self, name: str) -> None:
        """Count a frame on which a stage failed."""
        if name in self._stage_errors:
            self._stage_errors[name].inc()

    def serves(self, model_id: str, runs: Iterable[tuple[str, str, str]] = ()) -> None:
        """Set the live model, and the backend and precision of each of its networks."""
        self._model_info.clear()
        self._model_info.labels(model_id).set(1)
        self._backend_info.clear()
        for network, backend, precision in runs:
            self._backend_info.labels(network, backend, precision).set(1)

    def drifts(self, pictures: float, answers: float) -> None:
        """Set the drift of the live model."""
        self._drift.labels("pictures").set(pictures)
        self._drift.labels("answers").set(answers)

    def no_drift_known(self) -> None:
        """Remove the drift: the live model has no reference, or too few frames."""
        self._drift.clear()

    def count_pixels(self, raw_bytes: int, sent_bytes: int) -> None:
        """Count the bytes of verified frames, as pixels and as messages."""
        self._raw_bytes.inc(raw_bytes)
        self._sent_bytes.inc(sent_bytes)

    def strip_checked(self, entropy_bits: float, passes: int, *, flagged: bool) -> None:
        """Record a frame that STRIP has checked."""
        self._strip_checked.inc()
        self._strip_passes.inc(passes)
        self._strip_entropy.observe(entropy_bits)
        if flagged:
            self._strip_flagged.inc()
