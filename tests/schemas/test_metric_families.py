"""Metric families: registration, buckets, and repeated observations."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram

from schemas.limits import BLOCK_PIXELS, dropped_per_block
from schemas.metrics import END_TO_END, SECONDS, Metric, observe_often


def test_a_metric_registers_its_name_help_labels_and_buckets() -> None:
    registry = CollectorRegistry()
    seen = Metric(Counter, "pointillist_seen_total", "Frames seen, by camera", ("camera_id",)).on(registry)
    duration = Metric(Histogram, "pointillist_took_seconds", "Time taken, by stage", ("stage",), (0.5, 2.0)).on(
        registry
    )
    seen.labels(camera_id="site/door").inc(3)
    duration.labels("unpack").observe(1.0)
    families = {family.name: family for family in registry.collect()}
    assert families["pointillist_seen"].documentation == "Frames seen, by camera"
    assert families["pointillist_took_seconds"].documentation == "Time taken, by stage"
    assert registry.get_sample_value("pointillist_seen_total", {"camera_id": "site/door"}) == 3
    buckets = [
        (sample.labels["le"], sample.value)
        for sample in families["pointillist_took_seconds"].samples
        if sample.name.endswith("_bucket")
    ]
    assert buckets == [("0.5", 0.0), ("2.0", 1.0), ("+Inf", 1.0)]
    assert registry.get_sample_value("pointillist_took_seconds_count", {"stage": "unpack"}) == 1


def test_a_drop_ratio_is_rounded_to_pixels_of_a_block() -> None:
    assert [dropped_per_block(ratio) for ratio in (0.0, 0.25, 0.5, 0.26, 0.875)] == [0, 16, 32, 17, 56]
    assert BLOCK_PIXELS == 64


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.floats(0, 100) | st.sampled_from(SECONDS), st.integers(1, 5), max_size=20))
def test_weighted_observations_equal_single_ones(counts: dict[float, int]) -> None:
    often, single = CollectorRegistry(), CollectorRegistry()
    observe_often(END_TO_END.on(often), counts)
    histogram = END_TO_END.on(single)
    for value, count in counts.items():
        for _ in range(count):
            histogram.observe(value)
    assert samples(often) == pytest.approx(samples(single))


def samples(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    found = [sample for family in registry.collect() for sample in family.samples]
    return {(each.name, *each.labels.values()): each.value for each in found if not each.name.endswith("_created")}
