"""The decisions of Kubernetes' autoscaler for a `ScaledObject` of KEDA, replayed without a cluster.

The formulas are those of Kubernetes' page "Horizontal Pod Autoscaling" and of KEDA's page "ScaledObject specification":
a metric asks for ⌈replicas × value ÷ target⌉ (`Value`) or ⌈value ÷ target⌉ (`AverageValue`), nothing changes within the
tolerance, and the largest number of all metrics counts. Then the windows of stabilisation, the policies of each
direction and the bounds apply.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

TOLERANCE: Final = 0.1
"""Kubernetes' default: a metric within a tenth of its target changes nothing."""
SYNC_S: Final = 15.0
"""Seconds between two decisions, Kubernetes' default."""


class Autoscaler:
    """The replicas that one `ScaledObject` asks for over time."""

    def __init__(self, scaled: Mapping[str, Any]) -> None:
        spec = scaled["spec"]
        self._least, self._most = spec["minReplicaCount"], spec["maxReplicaCount"]
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        self._up, self._down = behavior["scaleUp"], behavior["scaleDown"]
        self._targets = {each["name"]: _target(each) for each in spec["triggers"]}
        self._asked: deque[tuple[float, int]] = deque()
        self._changes: deque[tuple[float, int]] = deque()

    def decide(self, now_s: float, replicas: int, metrics: Mapping[str, float]) -> int:
        """Return the number of replicas from `now_s` on, from the value of each trigger by its name."""
        asked = max(_wanted(replicas, metrics[name], *target) for name, target in self._targets.items())
        self._asked.append((now_s, asked))
        longest = max(_window(self._up), _window(self._down))
        while self._asked[0][0] < now_s - longest:
            self._asked.popleft()
        # Upwards the least number of the window counts, downwards the largest one.
        upwards = min(n for at, n in self._asked if at >= now_s - _window(self._up))
        downwards = max(n for at, n in self._asked if at >= now_s - _window(self._down))
        wanted = min(max(replicas, upwards), downwards)
        allowed = min(wanted, self._limit(now_s, replicas, self._up, 1))
        allowed = max(allowed, self._limit(now_s, replicas, self._down, -1))
        decided: int = min(max(allowed, self._least), self._most)
        if decided != replicas:
            self._changes.append((now_s, decided - replicas))
        return decided

    def _limit(self, now_s: float, replicas: int, rules: Mapping[str, Any], sign: int) -> int:
        """Return the farthest number in one direction: the policy that allows the largest change counts."""
        limits: list[int] = []
        for policy in rules["policies"]:
            changed = sum(by for at, by in self._changes if at > now_s - policy["periodSeconds"] and by * sign > 0)
            start = replicas - changed
            step = policy["value"] if policy["type"] == "Pods" else math.ceil(start * policy["value"] / 100)
            limits.append(start + sign * step)
        return max(limits) if sign > 0 else min(limits)


def _target(trigger: Mapping[str, Any]) -> tuple[float, bool]:
    """Return the target of a trigger, and whether it is one of the whole instead of one for each replica."""
    metadata = trigger["metadata"]
    return float(metadata.get("threshold") or metadata["lagThreshold"]), trigger.get("metricType") == "Value"


def _wanted(replicas: int, value: float, target: float, whole: bool) -> int:
    ratio = value / target if whole else value / (target * replicas)
    return replicas if abs(ratio - 1) <= TOLERANCE else math.ceil(replicas * ratio if whole else value / target)


def _window(rules: Mapping[str, Any]) -> float:
    return float(rules.get("stabilizationWindowSeconds", 0))
