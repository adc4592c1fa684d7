"""Key frames that the processors miss, asked for at the cameras: from Kafka's events to signed MQTT messages.

Every bridge passes every request on; a camera obeys the first, for the others name a key frame that is not its last any
more. Nothing is kept: a request that no bridge hears is made again while the key frame is missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from google.protobuf.message import DecodeError

from schemas.errors import Malformed, WireError
from schemas.frame import sign_message
from schemas.identity import CameraId, camera_id_on_wire
from schemas.keys import KeyRing
from schemas.pointillist_pb2 import KeyRequest
from schemas.topics import Channel, KafkaTopic, mqtt_topic

log = structlog.get_logger()

CE_TYPE: Final = b"pointillist.v1.KeyRequest"
MAX_REQUEST_BYTES: Final = 64
APART_S: Final = 1.0
"""A key frame is asked for at most once in this time: others may write to Kafka too."""
REMEMBERED: Final = 4096
START_S: Final = 10.0
STOP_S: Final = 2.0
AGAIN_S: Final = 1.0
COMPLAIN_AFTER: Final = 3


class KeyRequests:
    """Reads the requests that come from now on and hands them to `publish` as MQTT topic and payload."""

    def __init__(self, bootstrap: str, client: str, keys: KeyRing, publish: Callable[[str, bytes], None]) -> None:
        self._bootstrap = bootstrap
        self._client = client
        self._keys = keys
        self._publish = publish
        self._last_s: OrderedDict[tuple[CameraId, int, int], float] = OrderedDict()

    async def run(self) -> None:
        """Pass requests on until cancelled; a Kafka that is away is waited for."""
        failures = 0
        while True:
            consumer = AIOKafkaConsumer(
                KafkaTopic.EVENTS.value,
                bootstrap_servers=self._bootstrap,
                client_id=f"{self._client}-key-requests",
                auto_offset_reset="latest",
                enable_auto_commit=False,
            )
            try:
                async with asyncio.timeout(START_S):
                    await consumer.start()
                while True:
                    records = await consumer.getmany(timeout_ms=60_000)
                    failures = 0
                    for part in records.values():
                        self.take(part, time.monotonic())
            except Exception as error:
                # Whatever the client library reports: the frames' way must not end with the requests'.
                failures += 1
                if failures == COMPLAIN_AFTER:
                    log.warning("requests for key frames are not heard", cause=repr(error)[:300])
            finally:
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(STOP_S):
                        await consumer.stop()
            await asyncio.sleep(AGAIN_S)

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
