"""Metrics of Mosquitto, from its own messages under `$SYS` every ten seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from prometheus_client import CollectorRegistry, Gauge

from infra.monitor.follow import Follower
from schemas import metrics
from schemas.topics import BROKER_STATE, BROKER_STATE_ROOT
from schemas.transport.access import Login, Tls

CLIENT: Final = "monitor"
_AGAIN_S: Final = 5


class Mosquitto:
    """A client that subscribes, and reconnects by itself without a limit."""

    def __init__(
        self,
        registry: CollectorRegistry,
        up: Gauge,
        address: tuple[str, int],
        tls: Tls | None,
        login: Login | None,
    ) -> None:
        self._address = address
        self._up = up
        messages, size = metrics.MQTT_MESSAGES.on(registry), metrics.MQTT_BYTES.on(registry)
        self._takers: dict[str, Callable[[float], None]] = {
            "clients/connected": metrics.MQTT_CLIENTS.on(registry).set,
            "messages/received": Follower(messages, "received").see,
            "messages/sent": Follower(messages, "sent").see,
            "publish/messages/dropped": Follower(messages, "dropped").see,
            "bytes/received": Follower(size, "received").see,
            "bytes/sent": Follower(size, "sent").see,
            "store/messages/bytes": metrics.MQTT_STORED.on(registry).set,
        }
        self._client = Client(CallbackAPIVersion.VERSION2, CLIENT, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.reconnect_delay_set(1, _AGAIN_S)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        if tls is not None:
            self._client.tls_set_context(tls.context())
        if login is not None:
            self._client.username_pw_set(login.user, login.password.get_secret_value())

    def begin(self) -> None:
        """Connect, and receive in a separate thread."""
        self._client.connect_async(*self._address)
        self._client.loop_start()

    def look(self) -> bool:
        """Return whether the broker answers now, and set that metric."""
        is_there = self._client.is_connected()
        self._up.set(is_there)
        return is_there

    def end(self) -> None:
        """Close the client."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if not reason.is_failure:
            client.subscribe([(f"{BROKER_STATE_ROOT}/{topic}", 0) for topic in BROKER_STATE])

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        take = self._takers.get(message.topic.removeprefix(f"{BROKER_STATE_ROOT}/"))
        try:
            value = float(message.payload)
        except ValueError:
            return
        if take is not None:
            take(value)
