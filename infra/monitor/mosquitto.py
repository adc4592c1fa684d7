"""Metrics of Mosquitto, from its own messages under `$SYS` every ten seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from infra.monitor.follow import Follower
from schemas import metrics
from schemas.topics import BROKER_STATE, BROKER_STATE_ROOT
from schemas.transport.access import MqttAccess
from schemas.transport.mqtt.background import BackgroundClient
from schemas.transport.mqtt.connection import Subscription

_AGAIN_S: Final = 5


class Mosquitto:
    """A client that subscribes, and reconnects by itself without a limit."""

    def __init__(self, registry: CollectorRegistry, up: Gauge, broker: MqttAccess) -> None:
        self._up = up
        messages, size = metrics.MQTT_MESSAGES.on(registry), metrics.MQTT_BYTES.on(registry)
        self._takers: dict[str, Callable[[float], None]] = {
            "clients/connected": metrics.MQTT_CLIENTS.on(registry).set,
            "messages/received": Follower(messages, "received").update,
            "messages/sent": Follower(messages, "sent").update,
            "publish/messages/dropped": Follower(messages, "dropped").update,
            "bytes/received": Follower(size, "received").update,
            "bytes/sent": Follower(size, "sent").update,
            "store/messages/bytes": metrics.MQTT_STORED.on(registry).set,
        }
        # Without a name: two monitors of one name would end each other's connections.
        self._client = BackgroundClient(
            broker, self._on_message, on_connected=self._subscribe, reconnect_max_s=_AGAIN_S
        )

    def begin(self) -> None:
        """Connect, and receive in a separate thread."""
        self._client.start()

    def look(self) -> bool:
        """Return whether the broker answers now, and set that metric."""
        is_there = self._client.is_connected
        self._up.set(is_there)
        return is_there

    def end(self) -> None:
        """Close the client."""
        self._client.close()

    def _subscribe(self) -> None:
        self._client.subscribe([Subscription(f"{BROKER_STATE_ROOT}/{topic}") for topic in BROKER_STATE])

    def _on_message(self, topic: str, payload: bytes, _retained: bool) -> None:
        take = self._takers.get(topic.removeprefix(f"{BROKER_STATE_ROOT}/"))
        try:
            value = float(payload)
        except ValueError:
            return
        if take is not None:
            take(value)
