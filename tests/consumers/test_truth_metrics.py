"""The recorder's metrics of accuracy, clean and under attack."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter

from consumers.recorder.metrics import Meters, places_of
from schemas.messages.frame import Truth
from schemas.metrics import MAX_CAMERA_SERIES, MAX_CLASS_SERIES, exemplar
from tests.consumers.recorder_rig import BOOT, CAMERA, Rig, verdict

ATTACKED = Truth(3, attacked=True).to_wire()


def samples(registry: CollectorRegistry) -> dict[tuple[str, str, str], float]:
    return {
        (sample.labels["camera_id"], sample.labels["picture"], sample.labels["result"]): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "pointillist_camera_truth_frames_total"
    }


def test_attacked_frames_are_counted_by_camera_and_apart_from_all_clean_frames(rig: Rig) -> None:
    registry = CollectorRegistry()
    meters = Meters(registry, places_of(rig.settings))
    meters.count_transaction(rig.verdicts([verdict(n, class_id=3 if n else 5) for n in range(5)]))
    assert samples(registry) == {}
    meters.count_transaction(
        rig.verdicts([verdict(n, truth=ATTACKED, class_id=3 if n == 10 else 5) for n in range(10, 14)])
    )
    meters.count_transaction(rig.verdicts([verdict(n) for n in range(20, 22)]))
    meters.count_transaction(rig.verdicts([verdict(n) for n in range(3)], camera="lab/gate"))
    assert samples(registry) == {
        (CAMERA, "attacked", "correct"): 1, (CAMERA, "attacked", "wrong"): 3,
        (CAMERA, "clean", "correct"): 2, (CAMERA, "clean", "wrong"): 0,
    }  # fmt: skip
    clean = {
        result: registry.get_sample_value("pointillist_truth_frames_total", {"result": result})
        for result in ("correct", "wrong")
    }
    assert clean == {"correct": 4 + 2 + 3, "wrong": 1}


def test_frames_with_a_sticker_count_as_neither_clean_nor_attacked(rig: Rig) -> None:
    registry = CollectorRegistry()
    meters = Meters(registry, places_of(rig.settings))
    sticker, both = Truth(3, sticker=True).to_wire(), Truth(3, sticker=True, attacked=True).to_wire()
    meters.count_transaction(rig.verdicts([verdict(0), verdict(1, truth=sticker, class_id=5)]))
    meters.count_transaction(rig.verdicts([verdict(2, truth=both), verdict(3, truth=sticker, class_id=5)]))
    clean = [
        registry.get_sample_value("pointillist_truth_frames_total", {"result": result})
        for result in ("correct", "wrong")
    ]
    assert clean == [1, 0]
    assert samples(registry) == {
        (CAMERA, "attacked", "correct"): 1, (CAMERA, "attacked", "wrong"): 0,
        (CAMERA, "clean", "correct"): 0, (CAMERA, "clean", "wrong"): 0,
    }  # fmt: skip


def test_the_counter_of_wrong_verdicts_has_the_frame_as_its_exemplar(rig: Rig) -> None:
    registry = CollectorRegistry()
    meters = Meters(registry, places_of(rig.settings))
    meters.count_transaction(rig.verdicts([verdict(0), verdict(1, class_id=5), verdict(2, truth=ATTACKED, class_id=5)]))
    found = {
        (sample.name, sample.labels.get("picture")): sample.exemplar.labels
        for family in registry.collect()
        for sample in family.samples
        if sample.exemplar is not None
    }
    frame = {"camera_id": CAMERA, "boot": f"{BOOT:016x}"}
    assert found == {
        ("pointillist_truth_frames_total", None): frame | {"seq": "1"},
        ("pointillist_camera_truth_frames_total", "attacked"): frame | {"seq": "2"},
    }


@settings(deadline=None)
@given(st.integers(1, 63), st.integers(0, 2**63 - 1), st.integers(0, 2**53))
def test_an_exemplar_of_any_frame_is_accepted_by_the_metrics_client(letters: int, boot: int, seq: int) -> None:
    counter = Counter("made_total", "A counter.", registry=CollectorRegistry())
    counter.inc(1, exemplar(f"{'s' * letters}/{'c' * letters}", boot, seq))


def test_verdicts_are_counted_by_class_and_classes_beyond_the_bound_share_one_series(rig: Rig) -> None:
    registry = CollectorRegistry()
    meters = Meters(registry, places_of(rig.settings))
    meters.count_transaction(
        rig.verdicts([verdict(n, class_name="stop" if n < 3 else f"class {n}") for n in range(150)])
    )
    found = {
        sample.labels["class_name"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "pointillist_verdicts_total"
    }
    assert found["stop"] == 3
    assert sum(found.values()) == 150
    assert len(found) == MAX_CLASS_SERIES + 1
    assert found["other"] == 148 - MAX_CLASS_SERIES


def test_attacked_cameras_beyond_the_bound_share_one_series(rig: Rig) -> None:
    registry = CollectorRegistry()
    meters = Meters(registry, places_of(rig.settings))
    for number in range(MAX_CAMERA_SERIES + 3):
        meters.count_transaction(rig.verdicts([verdict(0, truth=ATTACKED), verdict(1)], camera=f"lab/cam{number}"))
    found = samples(registry)
    assert len({camera for camera, _, _ in found}) == MAX_CAMERA_SERIES + 1
    assert found["other", "attacked", "correct"] == 3
    assert ("other", "clean", "correct") not in found
