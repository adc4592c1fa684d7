"""A bridge without Kafka, let in by its certificate: it confirms every frame, and reads the number in each picture."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from types import TracebackType
from typing import Final, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from infra.layout import Layout
from infra.local.rtsp import counted_number
from infra.pki.roles import role_tls, share_name
from schemas.errors import WireError
from schemas.frame import decode_picture, open_frame, open_message, sign_message
from schemas.identity import CameraId
from schemas.keys import KeyRing
from schemas.pointillist_pb2 import Confirm, Frame, Ledger, Range, State, Status
from schemas.ranges import RangeSet
from schemas.topics import Channel, every_camera_filter, mqtt_topic, parse_mqtt_topic, shared_filter

EVERY_S: Final = 0.05


class ConfirmingBridge:
    """`numbers` by camera and frame, `statuses` as they came; from `with` to its end.

    With `numbered` off pictures are not looked at but for the last one, and sequence numbers stand for theirs.
    """

    def __init__(self, fleet: Layout, broker: tuple[str, int], keys: KeyRing, numbered: bool = True) -> None:
        self.numbers: dict[CameraId, dict[tuple[int, int], int]] = defaultdict(dict)
        self.statuses: dict[CameraId, tuple[State, str]] = {}
        self.repeated = 0
        self._last: dict[CameraId, Frame] = {}
        self._keys = keys
        self._numbered = numbered
        self._lock = threading.Lock()
        self._waiting: dict[tuple[CameraId, int], RangeSet] = defaultdict(RangeSet)
        self._revisions: dict[tuple[CameraId, int], int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._confirm_forever, daemon=True)
        share = share_name(fleet.pki)
        self._filters = [(shared_filter(share, channel), 1) for channel in (Channel.FRAME, Channel.EVENT)]
        self._filters.append((every_camera_filter(Channel.STATUS), 1))
        self._broker = broker
        self._client = Client(CallbackAPIVersion.VERSION2, "bridge", protocol=MQTTProtocolVersion.MQTTv5)
        self._client.tls_set_context(role_tls(fleet.pki, "bridge").context())
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, *_: client.subscribe(self._filters)

    def __enter__(self) -> Self:
        self._client.connect(*self._broker)
        self._client.loop_start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()

    def frames(self, camera: CameraId) -> int:
        """How many frames of a camera have come."""
        with self._lock:
            return len(self.numbers[camera])

    def in_order(self, camera: CameraId) -> list[int]:
        """The numbers in a camera's pictures, in the order of its frames."""
        with self._lock:
            return [number for _, number in sorted(self.numbers[camera].items())]

    def last_number(self, camera: CameraId) -> int:
        """The number in the picture of a camera's last frame."""
        return counted_number(decode_picture(self._keys.current(camera), self._last[camera])[0])

    def _on_message(self, _client: Client, _: object, message: MQTTMessage) -> None:
        camera, channel = parse_mqtt_topic(message.topic)
        try:
            if channel is Channel.FRAME:
                self._take(camera, bytes(message.payload))
            elif channel is Channel.EVENT:
                ledger = open_message(Ledger, camera, bytes(message.payload), self._keys)
                with self._lock:
                    self._revisions[camera, ledger.boot_id] = ledger.revision
            else:
                status = open_message(Status, camera, bytes(message.payload), self._keys)
                self.statuses[camera] = (status.state, status.detail)
        except WireError as error:
            raise RuntimeError(f"expected only what cameras of this fleet say: {error}") from None

    def _take(self, camera: CameraId, payload: bytes) -> None:
        frame = open_frame(camera, payload, self._keys)
        number = counted_number(decode_picture(self._keys.current(camera), frame)[0]) if self._numbered else frame.seq
        with self._lock:
            self.repeated += (frame.boot_id, frame.seq) in self.numbers[camera]
            self.numbers[camera][frame.boot_id, frame.seq] = number
            self._waiting[camera, frame.boot_id].add(frame.seq)
            last = self._last.get(camera)
            if last is None or (last.boot_id, last.seq) < (frame.boot_id, frame.seq):
                self._last[camera] = frame

    def _confirm_forever(self) -> None:
        while not self._ended.wait(EVERY_S):
            with self._lock:
                waiting, revisions = dict(self._waiting), dict(self._revisions)
                self._waiting.clear()
                self._revisions.clear()
            for camera, boot in waiting.keys() | revisions.keys():
                ranges = waiting.get((camera, boot), RangeSet()).ranges()
                confirm = Confirm(
                    boot_id=boot,
                    ranges=[Range(first=first, last=last) for first, last in ranges],
                    ledger_revision=revisions.get((camera, boot), 0),
                )
                payload = sign_message(self._keys.current(camera), confirm)
                self._client.publish(mqtt_topic(camera, Channel.CONFIRM), payload, qos=0)


def wait_for(what: str, holds: object, within_s: float) -> float:
    """Seconds until `holds()` is true; RuntimeError when it takes longer than `within_s`."""
    begun = time.monotonic()
    assert callable(holds)
    while not holds():
        if time.monotonic() - begun > within_s:
            raise RuntimeError(f"expected {what} within {within_s:g} s")
        time.sleep(0.02)
    return time.monotonic() - begun
