"""Refusals of frames by processors: signed messages, forwarded unchanged from Kafka's events topic to the camera.

Every bridge forwards every refusal; a camera applies the last one. None is stored: while frames are rejected, another
refusal follows within a second or with the next frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from aiokafka import ConsumerRecord

from producers.bridge.requests.records import forward_records
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.pointillist_pb2 import Refusal
from schemas.runtime.throttle import Throttle
from schemas.topics import Channel, mqtt_topic

APART_S: Final = 0.5
"""Minimum seconds between two refusals to a camera, so that replays cost it little."""
MAX_REFUSAL_BYTES: Final = 1024


class FrameRefusals:
    """The forwarder of refusals among Kafka's events: `publish` gets the MQTT topic and the payload."""

    def __init__(self, keys: KeyRing, publish: Callable[[str, bytes], None], refuse: Callable[[str], None]) -> None:
        """`refuse` is called with the kind of each message that is not signed by the server, or cannot be read."""
        self._keys = keys
        self._publish = publish
        self._refuse = refuse
        self._throttle: Throttle[CameraId] = Throttle(APART_S)

    def forward(self, records: Sequence[ConsumerRecord], now_s: float) -> None:
        """Forward the refusals among these `records`; `now_s` is monotonic."""

        def pass_on(camera_id: CameraId, _refusal: Refusal, signed: bytes) -> None:
            if self._throttle.try_acquire(camera_id, now_s):
                self._publish(mqtt_topic(camera_id, Channel.REFUSAL), signed)

        forward_records(records, Refusal, self._keys, pass_on, self._refuse, MAX_REFUSAL_BYTES)
