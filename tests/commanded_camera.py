"""A camera that obeys commands at a real broker."""

from __future__ import annotations

import threading
from pathlib import Path

from paho.mqtt.client import Client, MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from infra.local.mosquitto import Mosquitto
from producers.publisher.commands import CameraControl
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.camera_status import turn
from schemas.messages.frame import Encoding, sign_message
from schemas.pointillist_pb2 import Meta
from schemas.topics import Channel, mqtt_topic
from tests.waiting import PATIENCE_S


class CommandedCamera:
    """A camera's control behind a real broker. It obeys commands, publishes its settings, and sends no frames."""

    def __init__(self, mosquitto: Mosquitto, folder: Path, camera_id: CameraId, keys: KeyRing) -> None:
        self.camera_id = camera_id
        self.last_meta = Meta()
        """The last published `Meta` message."""
        self.key = keys.current(camera_id)
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.control = CameraControl(folder, self.key, Encoding(16, 0.05), rate=2.0)
        self._messages = 0
        subscribed = threading.Event()
        client = self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        client.on_message = self._on_message
        client.on_subscribe = lambda *_: subscribed.set()
        client.connect(mosquitto.host, mosquitto.port)
        client.subscribe([(mqtt_topic(camera_id, channel), 1) for channel in (Channel.SETTINGS, Channel.PROBES)])
        client.loop_start()
        assert subscribed.wait(PATIENCE_S)

    def describe(self) -> None:
        self._describe().wait_for_publish(PATIENCE_S)

    def _describe(self) -> MQTTMessageInfo:
        self._messages += 1
        encoding = self.control.encoding
        meta = Meta(
            boot_id=1, dropped_per_block=encoding.dropped_per_block, probe_share=encoding.probe_share,
            frames_per_second=self.control.rate, command_state=self.control.state, turn=turn(1, self._messages),
        )  # fmt: skip
        sent = self._publish(Channel.META, sign_message(self.key, meta))
        self.last_meta = meta
        return sent

    def publish(self, channel: Channel, payload: bytes) -> None:
        """Publish a retained message, and wait until the broker has it."""
        self._publish(channel, payload).wait_for_publish(PATIENCE_S)

    def _publish(self, channel: Channel, payload: bytes) -> MQTTMessageInfo:
        return self._client.publish(mqtt_topic(self.camera_id, channel), payload, qos=1, retain=True)

    def close(self) -> None:
        for channel in (Channel.META, Channel.SETTINGS, Channel.PROBES):
            self.publish(channel, b"")
        self.stop()

    def stop(self) -> None:
        """Close the connection. Retained messages stay at the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        obey = self.control.probe_request if message.topic.endswith("probes") else self.control.command
        if message.payload and obey(bytes(message.payload)):
            self._describe()  # no wait: this thread receives the confirmation
