"""Probe requests: signed by the server, forwarded from Kafka's events to MQTT unchanged and retained.

Every bridge forwards every request, and a camera applies the first. Nothing is stored: the server repeats a request
until the camera announces that it has applied it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from aiokafka import ConsumerRecord

from producers.bridge.requests.records import forward_records
from schemas.clock import unix_ms
from schemas.errors import MalformedError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.limits import MAX_AHEAD_MS
from schemas.pointillist_pb2 import ProbeRequest
from schemas.runtime.throttle import Throttle
from schemas.topics import Channel, mqtt_topic

APART_S: Final = 0.5
"""The same request is forwarded at most once in this time, which bounds the cost of replays for a camera."""


class ProbeRequests:
    """Forwarder of requests: reads them from Kafka's events and calls `publish` with MQTT topic and payload, to be
    retained."""

    def __init__(
        self,
        keys: KeyRing,
        publish: Callable[[str, bytes], None],
        refuse: Callable[[str], None],
        clock_ms: Callable[[], int] = unix_ms,
    ) -> None:
        """`refuse` is called for each request that is unreadable, out of date, or not signed by the server."""
        self._keys = keys
        self._publish = publish
        self._refuse = refuse
        self._clock_ms = clock_ms
        self._throttle: Throttle[tuple[CameraId, int]] = Throttle(APART_S)

    def forward(self, records: Sequence[ConsumerRecord], now_s: float) -> None:
        """Forward the requests in `records` that change a share of probes; `now_s` is monotonic."""

        def pass_on(camera_id: CameraId, request: ProbeRequest, signed: bytes) -> None:
            if not 0 <= request.probe_share <= 1:
                raise MalformedError(f"expected a probe share from 0 to 1, got {request.probe_share}")
            ahead_ms = request.issued_ms - self._clock_ms()
            if abs(ahead_ms) > MAX_AHEAD_MS:
                # An old request is a replay. If it were retained, a camera without its state would apply it.
                raise MalformedError(
                    f"expected a request issued within {MAX_AHEAD_MS} ms of now, got one {ahead_ms} ms ahead"
                )
            if self._throttle.too_soon((camera_id, request.issued_ms), now_s):
                return
            self._throttle.note((camera_id, request.issued_ms), now_s)
            self._publish(mqtt_topic(camera_id, Channel.PROBES), signed)

        forward_records(records, ProbeRequest, self._keys, pass_on, self._refuse)
