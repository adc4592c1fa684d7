"""How often cameras are to send whole frames: from Kafka's events to signed, retained settings.

Every bridge passes every request on, and all of them make the same message of it: a camera obeys the first. Nothing is
kept: a request that no bridge hears is made again while the camera does not announce that it obeys.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from aiokafka import ConsumerRecord
from google.protobuf.message import DecodeError

from schemas.errors import ConfigError, Malformed, WireError
from schemas.frame import Encoding, sign_message
from schemas.identity import CameraId, camera_id_on_wire
from schemas.keys import KeyRing
from schemas.pointillist_pb2 import Command, ProbeRequest
from schemas.topics import Channel, mqtt_topic

log = structlog.get_logger()

CE_TYPE: Final = b"pointillist.v1.ProbeRequest"
MAX_REQUEST_BYTES: Final = 64
APART_S: Final = 0.5
"""A camera is told at most once in this time: others may write to Kafka too."""
REMEMBERED: Final = 4096


class ProbeRequests:
    """Hands the requests among Kafka's events to `publish` as MQTT topic and payload, to be retained."""

    def __init__(self, keys: KeyRing, publish: Callable[[str, bytes], None]) -> None:
        self._keys = keys
        self._publish = publish
        self._last_s: OrderedDict[CameraId, float] = OrderedDict()

    def take(self, records: Sequence[ConsumerRecord], now_s: float) -> None:
        """Pass on what of these `records` asks for another share of probes; `now_s` is monotonic."""
        for record in records:
            if ("ce_type", CE_TYPE) not in record.headers or record.key is None:
                continue
            try:
                self._pass_on(record.key, record.value or b"", now_s)
            except (WireError, ConfigError) as error:
                log.warning("request for probes refused", cause=str(error))

    def _pass_on(self, camera: bytes, value: bytes, now_s: float) -> None:
        try:
            camera_id = camera_id_on_wire(camera.decode())
            request = ProbeRequest.FromString(value[: MAX_REQUEST_BYTES + 1])
        except (UnicodeDecodeError, DecodeError):
            raise Malformed(f"expected a camera id and a pointillist.v1.ProbeRequest, got {camera[:140]!r}") from None
        wanted = Encoding(request.dropped_per_block, request.probe_share, request.profile)
        last_s = self._last_s.get(camera_id)
        if last_s is not None and now_s - last_s < APART_S:
            return
        command = Command(
            issued_ms=request.issued_ms,
            dropped_per_block=wanted.dropped_per_block,
            probe_share=wanted.probe_share,
            profile=request.profile,
        )
        signed = sign_message(self._keys.current(camera_id), command)
        self._last_s[camera_id] = now_s
        self._last_s.move_to_end(camera_id)
        if len(self._last_s) > REMEMBERED:
            self._last_s.popitem(last=False)
        self._publish(mqtt_topic(camera_id, Channel.SETTINGS), signed)
