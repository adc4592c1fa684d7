"""A bridge without Kafka: it receives frames and ledgers over MQTT and confirms the frames that a test selects."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from schemas.identity import CameraId, Identity
from schemas.keys.keys import KeyRing
from schemas.messages.frame import open_frame, open_message, sign_message
from schemas.pointillist_pb2 import Confirm, Frame, Ledger, Range
from schemas.ranges import RangeSet
from schemas.topics import Channel, every_camera_filter, mqtt_topic, parse_mqtt_topic
from tests.waiting import PATIENCE_S

SECRET = b"a fleet secret for the tests"


class FakeBridge:
    """A bridge whose `frames` and `ledgers` hold the verified messages; `confirming` decides for each frame."""

    def __init__(self, broker: tuple[str, int], confirming: Callable[[Identity], bool] = lambda _: True) -> None:
        self.keys = KeyRing(SECRET)
        self.confirming = confirming
        self.confirming_ledgers = True
        self.received: Counter[Identity] = Counter()
        self.frames: dict[Identity, Frame] = {}
        self.ledgers: dict[tuple[CameraId, int], Ledger] = {}
        self.topics: dict[str, bytes] = {}
        self.unconfirmed_peak = 0
        self._broker = broker
        self._lock = threading.Lock()
        self._waiting: dict[tuple[CameraId, int], RangeSet] = defaultdict(RangeSet)
        self._revisions: dict[tuple[CameraId, int], int] = {}
        self._confirmed: set[Identity] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._confirm_forever, daemon=True)
        self._subscribed = threading.Event()
        self._client = self._connect()
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect; pending confirmations are dropped."""
        self._ended.set()
        self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def confirmed(self) -> set[Identity]:
        """The frames that a confirmation was sent for."""
        with self._lock:
            return set(self._confirmed)

    def confirm(self, identities: list[Identity]) -> None:
        """Confirm frames now, whether or not they have arrived."""
        with self._lock:
            for identity in identities:
                self._waiting[identity.camera_id, identity.boot_id].add(identity.seq)
        self._flush()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish any payload on any topic."""
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(5)

    def _connect(self) -> Client:
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        client.reconnect_delay_set(1, 1)
        client.on_message = self._on_message
        client.on_connect = self._on_connect
        client.on_subscribe = lambda *_: self._subscribed.set()
        client.connect(*self._broker, keepalive=60)
        client.loop_start()
        assert self._subscribed.wait(PATIENCE_S)
        return client

    def _on_connect(self, client: Client, *_: object) -> None:
        client.subscribe([(every_camera_filter(c), 1) for c in (Channel.FRAME, Channel.EVENT)])
        client.subscribe([(every_camera_filter(c), 1) for c in (Channel.STATUS, Channel.META)])

    def _on_message(self, _client: Client, _: object, message: MQTTMessage) -> None:
        camera_id, channel = parse_mqtt_topic(message.topic)
        payload = bytes(message.payload)
        if channel is Channel.FRAME:
            frame = open_frame(camera_id, payload, self.keys)
            identity = Identity(camera_id, frame.boot_id, frame.seq)
            with self._lock:
                self.received[identity] += 1
                self.frames[identity] = frame
                self.unconfirmed_peak = max(self.unconfirmed_peak, len(self.received) - len(self._confirmed))
                if self.confirming(identity):
                    self._waiting[camera_id, frame.boot_id].add(frame.seq)
        elif channel is Channel.EVENT:
            ledger = open_message(Ledger, camera_id, payload, self.keys)
            with self._lock:
                known = self.ledgers.get((camera_id, ledger.boot_id))
                if known is None or known.revision < ledger.revision:
                    self.ledgers[camera_id, ledger.boot_id] = ledger
                if self.confirming_ledgers:
                    self._revisions[camera_id, ledger.boot_id] = ledger.revision
        else:
            self.topics[message.topic] = payload

    def _confirm_forever(self) -> None:
        while not self._ended.wait(0.05):
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            waiting, revisions = dict(self._waiting), dict(self._revisions)
            self._waiting.clear()
            self._revisions.clear()
        for camera_id, boot_id in waiting.keys() | revisions.keys():
            ranges = waiting.get((camera_id, boot_id), RangeSet())
            confirm = Confirm(
                boot_id=boot_id,
                ranges=[Range(first=first, last=last) for first, last in ranges.ranges()],
                ledger_revision=revisions.get((camera_id, boot_id), 0),
            )
            payload = sign_message(self.keys.current(camera_id), confirm)
            self._client.publish(mqtt_topic(camera_id, Channel.CONFIRM), payload, qos=0)
            with self._lock:
                self._confirmed |= {Identity(camera_id, boot_id, seq) for seq in ranges}
