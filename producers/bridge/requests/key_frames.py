"""Signed requests for new key frames, forwarded unchanged from Kafka's events to MQTT.

For profiles whose frames depend on a key frame. Every bridge forwards every request. A camera obeys the first; the
others name a key frame that is no longer its last. Nothing is stored: processors repeat a request while the key frame
is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from aiokafka import ConsumerRecord

from producers.bridge.requests.records import forward_records
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.pointillist_pb2 import KeyRequest
from schemas.runtime.throttle import Throttle
from schemas.topics import Channel, mqtt_topic

APART_S: Final = 1.0
"""A key frame is requested at most once in this time, which bounds what replayed requests cost a camera."""


class KeyRequests:
    """The requests for key frames among Kafka's events; `publish` gets MQTT topic and payload."""

    def __init__(self, keys: KeyRing, publish: Callable[[str, bytes], None], refuse: Callable[[str], None]) -> None:
        """`refuse` gets the kind of each request that is not signed by the server, or cannot be read."""
        self._keys = keys
        self._publish = publish
        self._refuse = refuse
        self._throttle: Throttle[tuple[CameraId, int, int]] = Throttle(APART_S)

    def forward(self, records: Sequence[ConsumerRecord], now_s: float) -> None:
        """Forward the requests for key frames among these `records`; `now_s` is monotonic."""

        def pass_on(camera_id: CameraId, request: KeyRequest, signed: bytes) -> None:
            wanted = (camera_id, request.boot_id, request.seq)
            if self._throttle.too_soon(wanted, now_s):
                return
            self._throttle.note(wanted, now_s)
            self._publish(mqtt_topic(camera_id, Channel.KEY_REQUEST), signed)

        forward_records(records, KeyRequest, self._keys, pass_on, self._refuse)
