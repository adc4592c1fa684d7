"""How often cameras are to send whole frames: from Kafka's events to signed, retained settings.

Every bridge passes every request on, and all of them make the same message of it: a camera obeys the first. Nothing is
kept: a request that no bridge hears is made again while the camera does not announce that it obeys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from aiokafka import ConsumerRecord

from producers.bridge.request_records import hand_on
from producers.bridge.throttle import Throttle
from schemas.frame import Encoding, sign_message
from schemas.identity import CameraId
from schemas.keys import KeyRing
from schemas.pointillist_pb2 import Command, ProbeRequest
from schemas.topics import Channel, mqtt_topic

APART_S: Final = 0.5
"""A camera is told at most once in this time: others may write to Kafka too."""


class ProbeRequests:
    """Hands the requests among Kafka's events to `publish` as MQTT topic and payload, to be retained."""

    def __init__(self, keys: KeyRing, publish: Callable[[str, bytes], None]) -> None:
        self._keys = keys
        self._publish = publish
        self._throttle: Throttle[CameraId] = Throttle(APART_S)

    def take(self, records: Sequence[ConsumerRecord], now_s: float) -> None:
        """Pass on what of these `records` asks for another share of probes; `now_s` is monotonic."""

        def pass_on(camera_id: CameraId, request: ProbeRequest) -> None:
            wanted = Encoding(request.dropped_per_block, request.probe_share, request.profile)
            if self._throttle.too_soon(camera_id, now_s):
                return
            command = Command(
                issued_ms=request.issued_ms,
                dropped_per_block=wanted.dropped_per_block,
                probe_share=wanted.probe_share,
                profile=request.profile,
            )
            signed = sign_message(self._keys.current(camera_id), command)
            self._throttle.note(camera_id, now_s)
            self._publish(mqtt_topic(camera_id, Channel.SETTINGS), signed)

        hand_on(records, ProbeRequest, pass_on, "request for probes refused")
