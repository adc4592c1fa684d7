"""A camera's commands at the broker: read the settings in force, and send commands."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from schemas.clock import unix_ms
from schemas.errors import BrokerError, WireError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.limits import MAX_AHEAD_MS
from schemas.messages.frame import open_message, sign_message
from schemas.pointillist_pb2 import Command, Meta
from schemas.topics import Channel, mqtt_topic
from schemas.transport.access import MqttAccess, tls_refusal
from schemas.transport.mqtt.background import BackgroundClient
from schemas.transport.mqtt.connection import Subscription

ANSWER_S: Final = 10.0


class CameraSettingsClient:
    """An MQTT connection that reads one camera's `meta`. Only signed messages count."""

    def __init__(self, broker: MqttAccess, camera_id: CameraId, keys: KeyRing) -> None:
        self.meta: Meta | None = None
        """The last `meta` received, None before the first."""
        self.refused: WireError | None = None
        """The reason for rejecting the retained `meta`."""
        self.issued_ms = 0
        """The issue time of the last command sent, 0 before the first."""
        self._address = broker.address
        self._camera_id = camera_id
        self._keys = keys
        self._changed = threading.Condition()
        self._subscribed = 0
        self._client = BackgroundClient(
            broker,
            self._on_message,
            on_connected=lambda: self._subscribe(retain_handling=0),
            on_subscribed=self._on_subscribed,
        )

    def __enter__(self) -> Self:
        """Connect and read the retained message. Raises `BrokerError` if the broker does not answer."""
        try:
            self._client.connect()
        except OSError as error:
            host, port = self._address
            raise BrokerError(f"{host}:{port}: expected an MQTT broker, got {tls_refusal(error) or error}") from None
        # A broker sends retained messages before it answers the next request, here a second one for the same topic.
        answered = self._await(lambda: self._subscribed == 2 or bool(self._client.subscription_refusal), ANSWER_S)
        if refusal := self._client.subscription_refusal:
            self.close()
            raise BrokerError(
                f"MQTT broker: expected it to accept a subscription to {mqtt_topic(self._camera_id, Channel.META)}, "
                f"got {refusal!r}. Check the rights of this client."
            )
        if not answered:
            self.close()
            raise BrokerError(f"MQTT broker: expected a subscription within {ANSWER_S:g} s, got no response")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect."""
        self._client.close()

    def reset(self, wait_s: float) -> bool:
        """Send a retained reset command. Return whether the camera confirmed within `wait_s`."""
        self._client.publish(mqtt_topic(self._camera_id, Channel.PROBES), b"")
        return self.send(Command(reset=True), wait_s)

    def send(self, command: Command, wait_s: float) -> bool:
        """Send a retained command. Return whether the camera confirmed within `wait_s`.

        It is issued after the last command that the camera has announced, also if that came from a clock ahead of ours:
        a camera ignores an older one. Raises `BrokerError` if the broker does not accept it.
        """
        before_ms, now_ms = self._obeyed_ms(), unix_ms()
        command.issued_ms = self.issued_ms = max(now_ms, before_ms + 1 if before_ms <= now_ms + MAX_AHEAD_MS else 0)
        signed = sign_message(self._keys.current(self._camera_id), command)
        if not self._client.publish(mqtt_topic(self._camera_id, Channel.SETTINGS), signed, wait_s=ANSWER_S):
            raise BrokerError(f"MQTT broker: expected it to accept the command within {ANSWER_S:g} s, got no response")
        return self._await(lambda: before_ms != self._obeyed_ms() >= command.issued_ms, wait_s)

    def _obeyed_ms(self) -> int:
        """Return the issue time of the last command that the camera has announced, 0 without one."""
        return self.meta.command_state.issued_ms if self.meta is not None else 0

    def _await(self, holds: Callable[[], bool], wait_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(holds, wait_s)

    def _subscribe(self, retain_handling: int) -> None:
        topic = mqtt_topic(self._camera_id, Channel.META)
        self._client.subscribe([Subscription(topic, 1, retain_handling=retain_handling)])

    def _on_subscribed(self) -> None:
        with self._changed:
            self._subscribed += 1
            self._changed.notify_all()
        if self._subscribed == 1:
            self._subscribe(retain_handling=2)

    def _on_message(self, _topic: str, payload: bytes, _retained: bool) -> None:
        try:
            meta, refused = open_message(Meta, self._camera_id, payload, self._keys), None
        except WireError as error:
            meta, refused = None, error
        with self._changed:
            self.meta, self.refused = meta or self.meta, refused
            self._changed.notify_all()
