"""The buckets of the model load time."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from processors.settings import ProcessorSettings
from schemas.metrics import MODEL_LOAD


def test_every_allowed_model_load_time_has_a_bucket_and_minutes_differ() -> None:
    registry = CollectorRegistry()
    load = MODEL_LOAD.on(registry)
    longest = ProcessorSettings(kafka="none", bundle=Path("none")).model_load_s
    for seconds in (3.0, 40.0, 100.0, 250.0, longest):
        load.observe(seconds)

    def within(bound: float) -> float | None:
        return registry.get_sample_value("pointillist_model_load_seconds_bucket", {"le": str(bound)})

    assert [within(bound) for bound in (30.0, 60.0, 120.0, 300.0, 600.0)] == [1, 2, 3, 4, 5]
