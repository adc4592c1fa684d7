"""Key frames that the processors miss, asked for at the cameras: from Kafka's events to signed MQTT messages.

Every bridge passes every request on; a camera obeys the first, for the others name a key frame that is not its last any
more. Nothing is kept: a request that no bridge hears is made again while the key frame is missed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from aiokafka import ConsumerRecord
from google.protobuf.message import DecodeError

from schemas.errors import Malformed, WireError
from schemas.frame import sign_message
from schemas.identity import CameraId, camera_id_on_wire
from schemas.keys import KeyRing
from schemas.pointillist_pb2 import KeyRequest
from schemas.topics import Channel, mqtt_topic

log = structlog.get_logger()

CE_TYPE: Final = b"pointillist.v1.KeyRequest"
MAX_REQUEST_BYTES: Final = 64
APART_S: Final = 1.0
"""A key frame is asked for at most once in this time: others may write to Kafka too."""
REMEMBERED: Final = 4096


class KeyRequests:
    """Hands the requests among Kafka's events to `publish` as MQTT topic and payload."""

    def __init__(self, keys: KeyRing, publish: Callable[[str, bytes], None]) -> None:
        self._keys = keys
        self._publish = publish
        self._last_s: OrderedDict[tuple[CameraId, int, int], float] = OrderedDict()

    def take(self, records: Sequence[ConsumerRecord], now_s: float) -> None:
        """Pass on what of these `records` asks for a key frame; `now_s` is monotonic."""
        for record in records:
            if ("ce_type", CE_TYPE) not in record.headers or record.key is None:
                continue
            try:
                self._pass_on(record.key, record.value or b"", now_s)
            except WireError as error:
                log.warning("request for a key frame refused", cause=str(error))

    def _pass_on(self, camera: bytes, value: bytes, now_s: float) -> None:
        try:
            camera_id = camera_id_on_wire(camera.decode())
            request = KeyRequest.FromString(value[: MAX_REQUEST_BYTES + 1])
        except (UnicodeDecodeError, DecodeError):
            raise Malformed(f"expected a camera id and a pointillist.v1.KeyRequest, got {camera[:140]!r}") from None
        wanted = (camera_id, request.boot_id, request.seq)
        last_s = self._last_s.get(wanted)
        if last_s is not None and now_s - last_s < APART_S:
            return
        key = self._keys.key(camera_id, request.key_generation)
        signed = sign_message(key, KeyRequest(boot_id=request.boot_id, seq=request.seq))
        self._last_s[wanted] = now_s
        self._last_s.move_to_end(wanted)
        if len(self._last_s) > REMEMBERED:
            self._last_s.popitem(last=False)
        self._publish(mqtt_topic(camera_id, Channel.KEY_REQUEST), signed)
