"""Counters for alert rules that fire at the first count: scrapes see an increase from 0."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, Counter

from consumers.cameras.transaction_effect import TransactionEffect
from consumers.recorder.metrics import Meters, StoragePlaces
from consumers.records.rows import LetterRow
from processors.metrics import ProcessorMetrics
from producers.bridge.rejections import Rejections
from producers.metrics import Instruments
from schemas import late_counter, metrics
from schemas.identity import CameraId
from schemas.late_counter import LateCounter
from schemas.metrics import Metric
from tests.clocks import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(1_000.0)
    monkeypatch.setattr(late_counter, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(late_counter, "AT_ZERO_S", 15.0)
    return clock


def scraped(registry: CollectorRegistry, metric: Metric[metrics.Kind], labels: dict[str, str]) -> float | None:
    return registry.get_sample_value(metric.name, labels)


def reject(registry: CollectorRegistry) -> None:
    letter = LetterRow("topic", 0, 0, "stage", "reason", "", "", False, 0, 0, "", b"", 0, 0, 0, 0)
    Meters(registry, StoragePlaces({}, None)).count_transaction(TransactionEffect(letters=[letter]))


COUNTS: dict[str, tuple[Callable[[CollectorRegistry], None], Metric[Counter], dict[str, str]]] = {
    "recorder skips a record": (
        lambda registry: Meters(registry, StoragePlaces({}, None)).kafka_damaged.inc(),
        metrics.KAFKA_DAMAGED,
        {"reader": "recorder"},
    ),
    "processor skips a record": (
        lambda registry: ProcessorMetrics(registry).kafka_damaged.inc(),
        metrics.KAFKA_DAMAGED,
        {"reader": "processor"},
    ),
    "processor rejects a model": (
        lambda registry: ProcessorMetrics(registry).model_swaps["refused"].inc(),
        metrics.MODEL_SWAPS,
        {"outcome": "refused"},
    ),
    "processor rejects a frame": (
        lambda registry: ProcessorMetrics(registry).refused["over_size"].inc(),
        metrics.REFUSED,
        {"reason": "over_size"},
    ),
    "stage fails": (
        lambda registry: ProcessorMetrics(registry).stage_failed("classify"),
        metrics.STAGE_ERRORS,
        {"stage": "classify"},
    ),
    "dead letter": (reject, metrics.DEAD_LETTERS, {"stage": "stage", "reason": "reason"}),
    "spool sheds a frame": (
        lambda registry: Instruments(registry).shed.inc(),
        metrics.CAMERA_FRAMES,
        {"outcome": "shed"},
    ),
    "camera exceeds its quota": (
        lambda registry: Rejections(registry).show({CameraId("site/door"): 1}),
        metrics.BRIDGE_OVER_QUOTA,
        {"camera_id": "site/door"},
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_before_the_first_scrape_appears_to_scrapes_as_an_increase_from_0(name: str, clock: Clock) -> None:
    count, metric, labels = COUNTS[name]
    registry = CollectorRegistry()
    count(registry)
    clock.now_s += 60.0  # other roles start
    seen = []
    for _ in range(5):
        seen.append(scraped(registry, metric, labels))
        clock.now_s += 5.0
    assert seen == [0, 0, 0, 1, 1]


def test_an_already_scraped_series_counts_at_once_and_other_counters_never_wait(clock: Clock) -> None:
    registry = CollectorRegistry()
    cameras = Instruments(registry)
    cameras.published.inc(7)
    assert scraped(registry, metrics.CAMERA_FRAMES, {"outcome": "published"}) == 7
    clock.now_s += 15.0
    assert scraped(registry, metrics.CAMERA_FRAMES, {"outcome": "shed"}) == 0
    cameras.shed.inc(2)
    assert scraped(registry, metrics.CAMERA_FRAMES, {"outcome": "shed"}) == 2


def test_a_late_counter_rejects_invalid_counts_like_a_counter() -> None:
    counter = LateCounter("a_total", "a", ["label"], registry=None)
    with pytest.raises(ValueError, match="missing label values"):
        counter.inc()
    with pytest.raises(ValueError, match="non-negative"):
        counter.labels("x").inc(-1)
