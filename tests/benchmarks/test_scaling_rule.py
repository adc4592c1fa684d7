"""The replayed autoscaler, which follows Kubernetes' documentation, and the shipped rule under load."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.reliability.scaling_rule import SYNC_S, Autoscaler
from producers.bridge.settings import BridgeSettings
from schemas.topics import KafkaTopic

SCALING = Path(__file__).parents[2] / "infra/kubernetes/base/scaling.yaml"
SHIPPED = next(each for each in yaml.safe_load_all(SCALING.read_text()) if each["kind"] == "ScaledObject")


def scaled_object(
    *, value: bool = True, up: Any = None, down: Any = None, bounds: tuple[int, int] = (1, 100)
) -> dict[str, Any]:
    """Return a ScaledObject with one trigger of target 100."""
    unlimited = {"policies": [{"type": "Percent", "value": 100_000, "periodSeconds": 15}]}
    to_zero = {"policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}
    trigger = {"name": "m", "metadata": {"threshold": "100"}, **({"metricType": "Value"} if value else {})}
    behavior = {"scaleUp": up or unlimited, "scaleDown": down or to_zero}
    return {
        "spec": {
            "minReplicaCount": bounds[0], "maxReplicaCount": bounds[1], "triggers": [trigger],
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}},
        }
    }  # fmt: skip


@pytest.mark.parametrize(
    ("replicas", "value", "decided"),
    [(3, 200, 6), (4, 50, 2), (5, 109, 5), (5, 91, 5), (5, 111, 6), (3, 134, 5), (2, 0, 1), (60, 200, 100)],
)
def test_replicas_scale_in_proportion_to_a_value_within_tolerance_and_bounds(
    replicas: int, value: float, decided: int
) -> None:
    assert Autoscaler(scaled_object()).decide(0, replicas, {"m": value}) == decided


@pytest.mark.parametrize(("replicas", "value", "decided"), [(3, 700, 7), (7, 720, 7), (9, 250, 3), (1, 0, 1)])
def test_an_average_is_divided_by_the_target(replicas: int, value: float, decided: int) -> None:
    assert Autoscaler(scaled_object(value=False)).decide(0, replicas, {"m": value}) == decided


def test_scaling_down_uses_the_largest_number_of_the_window() -> None:
    down = {"stabilizationWindowSeconds": 60, "policies": [{"type": "Pods", "value": 100, "periodSeconds": 15}]}
    scaler = Autoscaler(scaled_object(value=False, down=down))
    values = [(0, 900), (15, 300), (30, 500), (45, 300), (75, 300), (105, 300)]
    replicas, found = 9, []
    for now_s, value in values:
        replicas = scaler.decide(now_s, replicas, {"m": value})
        found.append(replicas)
    assert found == [9, 9, 9, 9, 5, 3]


def test_a_policy_limits_the_change_in_its_period() -> None:
    scaler = Autoscaler(scaled_object(up={"policies": [{"type": "Pods", "value": 2, "periodSeconds": 30}]}))
    replicas, found = 2, []
    for now_s in range(0, 75, 15):
        replicas = scaler.decide(now_s, replicas, {"m": 1000})
        found.append(replicas)
    assert found == [4, 4, 6, 6, 8]


@pytest.mark.parametrize(("frame_bytes", "busy"), [(3_000, 0.0), (4_700_000, 0.99)])
def test_frames_that_bridges_hold_back_scale_to_the_maximum(frame_bytes: int, busy: float) -> None:
    """Scale by the lag alone if the frames are small, and by the fully busy devices if they are large."""
    topics = yaml.safe_load_all((SCALING.parent / "topics.yaml").read_text())
    frames = next(each["spec"] for each in topics if each["metadata"]["name"] == KafkaTopic.FRAMES.value)
    scaler, replicas = Autoscaler(SHIPPED), 2
    credit = {name: BridgeSettings.model_fields[name].default for name in ("credit_frames", "credit_bytes")}
    held_back = frames["partitions"] * min(credit["credit_frames"], credit["credit_bytes"] // frame_bytes)
    for now_s in range(0, 300, int(SYNC_S)):
        replicas = scaler.decide(now_s, replicas, {"busy": busy * replicas, "waiting": 0, "lag": held_back})
    assert replicas == SHIPPED["spec"]["maxReplicaCount"]


def test_the_shipped_rule_follows_four_times_the_load_and_back_without_flapping() -> None:
    """Simulate a fluid model: a processor finishes 10 frames per second, beginning 20 seconds after its start."""
    scaler, started = Autoscaler(SHIPPED), [-100.0, -100.0]
    backlog, waited, replicas = 0.0, [], []
    for now_s in range(1500):
        load = 56.0 if 100 <= now_s < 700 else 14.0
        working = sum(now_s - at >= 20 for at in started)
        done = min(10.0 * working, backlog + load)
        backlog += load - done
        waited.append(backlog / max(done, 1))
        if now_s % int(SYNC_S) == 0:
            metrics = {"busy": done / 10, "waiting": waited[-1], "lag": min(backlog, 500)}
            wanted = scaler.decide(now_s, len(started), metrics)
            started = sorted([*started, *[now_s] * (wanted - len(started))])[:wanted]
        replicas.append(len(started))
    assert max(waited[:100]) < 1
    assert max(waited[220:700]) < 20, "120 seconds after the load has grown"
    assert replicas[-1] == 2
    changes = [after - before for before, after in pairwise(replicas) if after != before]
    assert sum(before * after < 0 for before, after in pairwise(changes)) <= 1
