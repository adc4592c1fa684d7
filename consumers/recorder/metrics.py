"""The recorder's metrics."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from consumers.cameras.camera import Camera
from consumers.cameras.state import State
from consumers.cameras.transaction_effect import TransactionEffect
from consumers.database.damage import count_set_aside
from consumers.database.engine import sqlite_file
from consumers.records.rows import FrameRow
from consumers.settings import RecorderSettings
from schemas import metrics
from schemas.errors import (
    BadPixelsError,
    BadSizeError,
    BadTagError,
    DecoderLostError,
    MalformedError,
    MissingReferenceError,
    NoKeyFrameError,
    RevokedKeyError,
    TooManyBootsError,
)
from schemas.evidence.alarms import KINDS
from schemas.messages.frame import Truth
from schemas.pointillist_pb2 import Alert
from schemas.runtime.disk import free_bytes

_SKEW_S = 15.0
"""Seconds for which a clock advance is shown, three scrapes or more, unless a larger one follows."""
_REFUSING = ("bridge", "validate", "recorder")
_REFUSALS = (MalformedError, BadTagError, RevokedKeyError, BadSizeError, BadPixelsError, TooManyBootsError)
_STAGE_REFUSALS = {
    "key": (MalformedError, NoKeyFrameError),
    "decode": (MalformedError, BadPixelsError, MissingReferenceError, DecoderLostError),
}
"""Rejections of a processor's stages `key` and `decode`."""


@dataclass(frozen=True)
class StoragePlaces:
    """The recorder's storage on local disks: folders by the name of their content, and the SQLite file."""

    folders: dict[str, Path]
    database: Path | None


def places_of(settings: RecorderSettings) -> StoragePlaces:
    """Return the places in the settings."""
    database = sqlite_file(settings.database)
    folders = {"database": database.parent} if database is not None else {}
    if "://" not in settings.quarantine:
        folders["quarantine"] = Path(settings.quarantine)
    return StoragePlaces(folders, database)


class Meters:
    """All metric families of the recorder, on one registry."""

    def __init__(self, registry: CollectorRegistry, places: StoragePlaces) -> None:
        recorded = metrics.RECORDED.on(registry)
        self._new, self._duplicate = recorded.labels("recorded"), recorded.labels("duplicate")
        self._latency = metrics.END_TO_END.on(registry)
        self._negative = metrics.NEGATIVE_LATENCY.on(registry)
        self._skew = metrics.CLOCK_SKEW.on(registry)
        truth = metrics.TRUTH.on(registry)
        self._correct, self._wrong = truth.labels("correct"), truth.labels("wrong")
        self._camera_truth = metrics.CAMERA_TRUTH.on(registry)
        self._verdicts = metrics.VERDICTS.on(registry)
        self._classes: set[str] = set()
        self._attacked: set[str] = set()
        self._alerts = metrics.ALERTS.on(registry)
        self._dead_letters = metrics.DEAD_LETTERS.on(registry)
        self._store_bytes = metrics.STORE_BYTES.on(registry)
        self.unpublished = metrics.ALERTS_UNPUBLISHED.on(registry)
        free = metrics.DISK_FREE.on(registry)
        for name, folder in places.folders.items():
            # Evaluated at each scrape: the recorder itself may be waiting for disk space.
            free.labels(name).set_function(partial(free_bytes, folder))
        count_set_aside(places.database, registry)
        self.kafka_damaged = metrics.KAFKA_DAMAGED.on(registry).labels("recorder")
        self.lag = metrics.RECORDER_LAG.on(registry)
        self.replicas_missing = metrics.KAFKA_REPLICAS_MISSING.on(registry)
        self._age = metrics.CAMERA_AGE.on(registry)
        self._flagged = metrics.CAMERA_FLAGGED.on(registry)
        self._evidence = metrics.CAMERA_EVIDENCE.on(registry)
        self._probe_share = metrics.CAMERA_PROBE_SHARE.on(registry)
        self._impaired = metrics.CAMERA_IMPAIRED.on(registry)
        self._impairments: set[tuple[str, str]] = set()
        self._shown: set[str] = set()
        self._ahead_ms = 0
        """Maximum clock advance since the metric was set."""
        self._skew_ms = 0
        self._skew_from_ms = -math.inf
        self._letter_labels = {(stage, error.reason) for stage in _REFUSING for error in _REFUSALS}
        self._letter_labels |= {(stage, error.reason) for stage, errors in _STAGE_REFUSALS.items() for error in errors}
        # Created at once: `increase()` misses the first event of a series that begins with it.
        for kind in KINDS:
            self._alerts.labels(kind)
        for labels in self._letter_labels:
            self._dead_letters.labels(*labels)

    def count_transaction(self, written: TransactionEffect) -> None:
        """Count the effect of one transaction."""
        self._new.inc(len(written.rows))
        self._duplicate.inc(written.duplicates)
        self._measure(written.rows)
        for letter in written.letters:
            self._dead_letters.labels(*self._bounded(letter.stage, letter.reason)).inc()
        self.count_alerts(written.alerts)

    def _measure(self, rows: Sequence[FrameRow]) -> None:
        late_ms = Counter([row.recorded_ms - row.captured_ms for row in rows])
        ahead = [late for late in late_ms if late < 0]
        for late in ahead:
            self._negative.inc(late_ms.pop(late))
            self._ahead_ms = max(self._ahead_ms, -late)
        metrics.observe_often(self._latency, {late / 1000: count for late, count in late_ms.items()})
        # Frames fall into few kinds, apart from their camera, which matters only for attacked frames.
        kinds = Counter([(row.truth, row.class_id, row.class_name) for row in rows])
        truths = {wire: Truth.from_wire(wire) for wire in {wire for wire, _, _ in kinds}}
        for (wire, class_id, class_name), count in kinds.items():
            self._verdicts.labels(self._bounded_class(class_name)).inc(count)
            truth = truths[wire]
            if truth is not None and truth.clean:
                if truth.class_id == class_id:
                    self._correct.inc(count)
                else:
                    row = next(row for row in rows if (row.truth, row.class_id) == (wire, class_id))
                    self._wrong.inc(count, metrics.exemplar(row.camera, row.boot, row.seq))
        if self._attacked or any(truth is not None and truth.attacked for truth in truths.values()):
            for row in rows:
                truth = truths[row.truth]
                if truth is not None:
                    self._judge(row, truth)

    def _judge(self, row: FrameRow, truth: Truth) -> None:
        camera, correct = row.camera, truth.class_id == row.class_id
        if truth.attacked and camera not in self._attacked and len(self._attacked) < metrics.MAX_CAMERA_SERIES:
            self._attacked.add(camera)
            # Created at once: `increase()` misses the first frame of a series that begins with it.
            for picture in ("attacked", "clean"):
                for result in ("correct", "wrong"):
                    self._camera_truth.labels(camera, picture, result)
        if truth.attacked or (truth.clean and camera in self._attacked):
            name = camera if camera in self._attacked else "other"
            picture, result = "attacked" if truth.attacked else "clean", "correct" if correct else "wrong"
            which = None if correct else metrics.exemplar(camera, row.boot, row.seq)
            self._camera_truth.labels(name, picture, result).inc(1, which)

    def _bounded(self, stage: str, reason: str) -> tuple[str, str]:
        """Return the labels while they are few, else a substitute: they come from records."""
        if len(self._letter_labels) < 100:
            self._letter_labels.add((stage, reason))
        return (stage, reason) if (stage, reason) in self._letter_labels else ("other", "other")

    def _bounded_class(self, name: str) -> str:
        if len(self._classes) < metrics.MAX_CLASS_SERIES:
            self._classes.add(name)
        return name if name in self._classes else "other"

    def count_alerts(self, alerts: Sequence[Alert]) -> None:
        """Count raised alerts by kind."""
        for alert in alerts:
            self._alerts.labels(alert.kind).inc()

    def show_stores(self, held: Mapping[str, int]) -> None:
        """Set the bytes of each store."""
        for store, size in held.items():
            self._store_bytes.labels(store).set(size)

    def show_cameras(self, cameras: Sequence[Camera], faulty: Sequence[tuple[str, State]], now_ms: int) -> None:
        """Show age, flagged share, evidence and probe share of cameras, and the states of `faulty` ones.

        The series of all other cameras are removed. The method also shows the maximum clock advance of any camera.
        """
        if self._ahead_ms >= self._skew_ms or now_ms - self._skew_from_ms >= 1000 * _SKEW_S:
            self._skew_ms, self._skew_from_ms, self._ahead_ms = self._ahead_ms, now_ms, 0
            self._skew.set(self._skew_ms / 1000)
        shown = set()
        for camera in cameras:
            age_s = camera.age_s(now_ms)
            if age_s is None:
                continue
            shown.add(camera.name)
            self._age.labels(camera.name).set(age_s)
            self._flagged.labels(camera.name).set(camera.flagged_share() or 0.0)
            self._evidence.labels(camera.name).set(camera.level)
            self._probe_share.labels(camera.name).set(camera.probe_share() or 0.0)
        for name in self._shown - shown:
            for family in (self._age, self._flagged, self._evidence, self._probe_share):
                family.remove(name)
        self._shown = shown
        impaired = {(name, state.value) for name, state in faulty}
        for labels in impaired:
            self._impaired.labels(*labels).set(1)
        for labels in self._impairments - impaired:
            self._impaired.remove(*labels)
        self._impairments = impaired
