"""A camera's commands at the broker: read the settings in force, and send commands."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from schemas.errors import BrokerError, WireError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.frame import open_message, sign_message
from schemas.pointillist_pb2 import Command, Meta
from schemas.topics import Channel, mqtt_topic
from schemas.transport.access import Login, Tls, tls_refusal

ANSWER_S: Final = 10.0


class CameraSettingsClient:
    """An MQTT connection that reads one camera's `meta`. Only signed messages count."""

    def __init__(
        self,
        address: tuple[str, int],
        camera_id: CameraId,
        keys: KeyRing,
        tls: Tls | None = None,
        login: Login | None = None,
    ) -> None:
        self.meta: Meta | None = None
        """The last `meta` received, None before the first."""
        self.refused: WireError | None = None
        """The reason for rejecting the retained `meta`."""
        self._address = address
        self._camera_id = camera_id
        self._keys = keys
        self._changed = threading.Condition()
        self._subscribed = 0
        client = self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        if tls is not None:
            client.tls_set_context(tls.context())
        if login is not None:
            client.username_pw_set(login.user, login.password.get_secret_value())
        client.on_connect = lambda *_: self._subscribe(retain_handling=0)
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message

    def __enter__(self) -> Self:
        """Connect and read the retained message. Raises `BrokerError` if the broker does not answer."""
        try:
            self._client.connect(*self._address)
        except OSError as error:
            host, port = self._address
            raise BrokerError(f"{host}:{port}: expected an MQTT broker, got {tls_refusal(error) or error}") from None
        self._client.loop_start()
        # A broker sends retained messages before it answers the next request, here a second one for the same topic.
        if not self._await(lambda: self._subscribed == 2, ANSWER_S):
            self.close()
            raise BrokerError(f"MQTT broker: expected a subscription within {ANSWER_S:g} s, got no response")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def reset(self, wait_s: float) -> bool:
        """Send a retained reset command. Return whether the camera confirmed within `wait_s`."""
        self._client.publish(mqtt_topic(self._camera_id, Channel.PROBES), b"", qos=1, retain=True)
        return self.tell(Command(reset=True), wait_s)

    def tell(self, command: Command, wait_s: float) -> bool:
        """Send a retained command. Return whether the camera confirmed within `wait_s`.

        Raises `BrokerError` if the broker does not accept it.
        """
        issued_ms = command.issued_ms = time.time_ns() // 10**6
        signed = sign_message(self._keys.current(self._camera_id), command)
        sent = self._client.publish(mqtt_topic(self._camera_id, Channel.SETTINGS), signed, qos=1, retain=True)
        sent.wait_for_publish(ANSWER_S)
        if not sent.is_published():
            raise BrokerError(f"MQTT broker: expected it to accept the command within {ANSWER_S:g} s, got no response")
        return self._await(lambda: self.meta is not None and self.meta.command_state.issued_ms >= issued_ms, wait_s)

    def _await(self, holds: Callable[[], bool], wait_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(holds, wait_s)

    def _subscribe(self, retain_handling: int) -> None:
        topic = mqtt_topic(self._camera_id, Channel.META)
        self._client.subscribe([(topic, SubscribeOptions(qos=1, retainHandling=retain_handling))])

    def _on_subscribe(self, *_: object) -> None:
        with self._changed:
            self._subscribed += 1
            self._changed.notify_all()
        if self._subscribed == 1:
            self._subscribe(retain_handling=2)

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        try:
            meta, refused = open_message(Meta, self._camera_id, bytes(message.payload), self._keys), None
        except WireError as error:
            meta, refused = None, error
        with self._changed:
            self.meta, self.refused = meta or self.meta, refused
            self._changed.notify_all()
