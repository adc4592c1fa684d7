"""A bridge without Kafka, with a certificate. It confirms every frame and reads the number in each picture."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from benchmarks.harness.rtsp import counted_number
from infra.pki.roles import role_tls, share_name
from infra.state_folder import Layout
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.frame import decode_picture, open_frame, open_message, parse_frame, sign_message
from schemas.pointillist_pb2 import Confirm, Ledger, Range, State, Status
from schemas.ranges import RangeSet
from schemas.topics import Channel, every_camera_filter, mqtt_topic, parse_mqtt_topic, shared_filter

EVERY_S: Final = 0.05


class ConfirmingBridge:
    """A confirming bridge that keeps all messages, and `statuses` by camera; a context manager.

    While cameras run, it only confirms frames. Tags and pictures are checked when the numbers are requested, so that
    their cost does not affect the cameras. Statuses use a separate connection.
    """

    def __init__(self, fleet: Layout, broker: tuple[str, int], keys: KeyRing) -> None:
        self.statuses: dict[CameraId, tuple[State, str]] = {}
        self._payloads: dict[CameraId, dict[tuple[int, int], bytes]] = defaultdict(dict)
        self._keys = keys
        self._lock = threading.Lock()
        self._waiting: dict[tuple[CameraId, int], RangeSet] = defaultdict(RangeSet)
        self._revisions: dict[tuple[CameraId, int], int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._confirm_forever, daemon=True)
        share = share_name(fleet.pki)
        filters = [shared_filter(share, channel) for channel in (Channel.FRAME, Channel.EVENT)]
        self._broker = broker
        self._client = self._connection(fleet, "bridge", filters, self._on_message)
        self._watcher = self._connection(fleet, "admin", [every_camera_filter(Channel.STATUS)], self._on_status)

    def _connection(
        self, fleet: Layout, role: str, filters: list[str], hear: Callable[[Client, object, MQTTMessage], None]
    ) -> Client:
        client = Client(CallbackAPIVersion.VERSION2, role, protocol=MQTTProtocolVersion.MQTTv5)
        client.tls_set_context(role_tls(fleet.pki, role).context())
        client.on_message = hear
        client.on_connect = lambda client, *_: client.subscribe([(name, 1) for name in filters])
        return client

    def __enter__(self) -> Self:
        for client in (self._client, self._watcher):
            client.connect(*self._broker)
            client.loop_start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        for client in (self._client, self._watcher):
            client.disconnect()
            client.loop_stop()

    def frames(self, camera: CameraId) -> int:
        """Return the number of a camera's frames, each counted once."""
        with self._lock:
            return len(self._payloads[camera])

    def numbers(self, camera: CameraId) -> list[int]:
        """Return the numbers in a camera's pictures, in frame order, after checking each tag."""
        return [self._number(camera, payload) for _, payload in sorted(self._payloads[camera].items())]

    def sequence(self, camera: CameraId) -> list[int]:
        """Return the sequence numbers of a camera's frames, in order."""
        return [seq for _, seq in sorted(self._payloads[camera])]

    def last_number(self, camera: CameraId) -> int:
        """Return the number in the picture of a camera's last frame."""
        return self._number(camera, self._payloads[camera][max(self._payloads[camera])])

    def _number(self, camera: CameraId, payload: bytes) -> int:
        return counted_number(decode_picture(self._keys.current(camera), open_frame(camera, payload, self._keys))[0])

    def _on_status(self, _client: Client, _: object, message: MQTTMessage) -> None:
        camera, _channel = parse_mqtt_topic(message.topic)
        status = open_message(Status, camera, bytes(message.payload), self._keys)
        self.statuses[camera] = (status.state, status.detail)

    def _on_message(self, _client: Client, _: object, message: MQTTMessage) -> None:
        camera, channel = parse_mqtt_topic(message.topic)
        payload = bytes(message.payload)
        if channel is Channel.EVENT:
            ledger = open_message(Ledger, camera, payload, self._keys)
            with self._lock:
                self._revisions[camera, ledger.boot_id] = ledger.revision
            return
        frame = parse_frame(payload)
        with self._lock:
            self._payloads[camera][frame.boot_id, frame.seq] = payload
            self._waiting[camera, frame.boot_id].add(frame.seq)

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
