"""Messages of cameras that the bridge rejects, and clients that the MQTT broker refuses: counted, and logged at
intervals."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from producers.bridge.mqtt.broker_log import REFUSALS, Refusal, refused
from schemas import metrics
from schemas.identity import CameraId
from schemas.runtime.throttle import Throttle

log = structlog.get_logger()

_AGAIN_S: Final = 60.0
"""Interval between two equal log lines: rejections may come at any rate."""
_OTHER: Final = "other"


class Rejections:
    """The metrics of both, which `show` brings up to date."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._over_quota = metrics.BRIDGE_OVER_QUOTA.on(registry)
        self._by_broker = metrics.MQTT_REFUSALS.on(registry)
        self._shown: set[str] = set()
        """Cameras with a series."""
        self._counts: Counter[Refusal] = Counter()
        self._reported: Throttle[tuple[str, str]] = Throttle(_AGAIN_S)
        for what in REFUSALS:  # from 0 on, so that the first one is an increase
            self._by_broker.labels(what)
        self._over_quota.labels(_OTHER)

    def record_broker_line(self, topic: bytes, line: bytes) -> None:
        """Count and log what a line of the broker's log reports."""
        found = refused(topic, line)
        if found is not None:
            self._counts[found.what] += 1
            if self._reported.try_acquire((found.what, found.who), time.monotonic()):
                log.warning("mqtt_action_refused", kind=found.what, client=found.who, detail=found.detail[:200])

    def show(self, over_quota: Mapping[CameraId, int]) -> None:
        """Count the rejections in the log, and the messages of each camera above its quota."""
        for what, count in self._counts.items():
            self._by_broker.labels(what).inc(count)
        self._counts.clear()
        for camera, count in over_quota.items():
            self._over_quota.labels(self._label(camera)).inc(count)
            if self._reported.try_acquire(("quota", camera), time.monotonic()):
                log.warning("camera_quota_exceeded", camera=camera, rejected_messages=count)

    def _label(self, camera: CameraId) -> str:
        if camera and len(self._shown) < metrics.MAX_CAMERA_SERIES:
            self._shown.add(camera)
        return camera if camera in self._shown else _OTHER
