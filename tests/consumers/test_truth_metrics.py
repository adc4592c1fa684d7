"""What the recorder says of accuracy, clean and under attack."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from consumers.metrics import Meters, places_of
from schemas.frame import Truth
from schemas.metrics import MAX_CAMERA_SERIES
from tests.consumers.recorder_rig import CAMERA, Rig, verdict

ATTACKED = Truth(3, attacked=True).to_wire()


def samples(registry: CollectorRegistry) -> dict[tuple[str, str, str], float]:
    return {
        (sample.labels["camera_id"], sample.labels["picture"], sample.labels["result"]): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "pointillist_camera_truth_frames_total"
    }


def test_attacked_frames_count_by_camera_beside_its_clean_ones_and_not_among_all_clean_ones(rig: Rig) -> None:
    registry = CollectorRegistry()
    meters = Meters(registry, places_of(rig.settings))
    meters.take(rig.verdicts([verdict(n, class_id=3 if n else 5) for n in range(5)]))
    assert samples(registry) == {}
    meters.take(rig.verdicts([verdict(n, truth=ATTACKED, class_id=3 if n == 10 else 5) for n in range(10, 14)]))
    meters.take(rig.verdicts([verdict(n) for n in range(20, 22)]))
    meters.take(rig.verdicts([verdict(n) for n in range(3)], camera="lab/gate"))
    assert samples(registry) == {
        (CAMERA, "attacked", "correct"): 1, (CAMERA, "attacked", "wrong"): 3,
        (CAMERA, "clean", "correct"): 2, (CAMERA, "clean", "wrong"): 0,
    }  # fmt: skip
    clean = {
        result: registry.get_sample_value("pointillist_truth_frames_total", {"result": result})
        for result in ("correct", "wrong")
    }
    assert clean == {"correct": 4 + 2 + 3, "wrong": 1}


def test_attacked_cameras_beyond_the_bound_share_one_series(rig: Rig) -> None:
    registry = CollectorRegistry()
    meters = Meters(registry, places_of(rig.settings))
    for number in range(MAX_CAMERA_SERIES + 3):
        meters.take(rig.verdicts([verdict(0, truth=ATTACKED), verdict(1)], camera=f"lab/cam{number}"))
    found = samples(registry)
    assert len({camera for camera, _, _ in found}) == MAX_CAMERA_SERIES + 1
    assert found["other", "attacked", "correct"] == 3
    assert ("other", "clean", "correct") not in found
