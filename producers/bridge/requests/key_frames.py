"""Key frames that the processors miss, asked for: signed requests from Kafka's events to MQTT, unchanged.

Every bridge passes every request on; a camera obeys the first, for the others name a key frame that is not its last any
more. Nothing is kept: a request that no bridge hears is made again while the key frame is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from aiokafka import ConsumerRecord

from producers.bridge.requests.records import hand_on
from schemas.identity import CameraId
from schemas.keys import KeyRing
from schemas.pointillist_pb2 import KeyRequest
from schemas.runtime.throttle import Throttle
from schemas.topics import Channel, mqtt_topic

APART_S: Final = 1.0
"""A key frame is asked for at most once in this time: what others replay costs a camera no more."""


class KeyRequests:
    """Hands the requests among Kafka's events to `publish` as MQTT topic and payload."""

    def __init__(self, keys: KeyRing, publish: Callable[[str, bytes], None], refuse: Callable[[str], None]) -> None:
        """`refuse` hears of each request that is not signed by the server, or cannot be read."""
        self._keys = keys
        self._publish = publish
        self._refuse = refuse
        self._throttle: Throttle[tuple[CameraId, int, int]] = Throttle(APART_S)

    def take(self, records: Sequence[ConsumerRecord], now_s: float) -> None:
        """Pass on what of these `records` asks for a key frame; `now_s` is monotonic."""

        def pass_on(camera_id: CameraId, request: KeyRequest, signed: bytes) -> None:
            wanted = (camera_id, request.boot_id, request.seq)
            if self._throttle.too_soon(wanted, now_s):
                return
            self._throttle.note(wanted, now_s)
            self._publish(mqtt_topic(camera_id, Channel.KEY_REQUEST), signed)

        hand_on(records, KeyRequest, self._keys, pass_on, self._refuse)
