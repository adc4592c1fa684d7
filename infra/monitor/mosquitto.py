"""Metrics of Mosquitto, from its own messages under `$SYS` every ten seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from infra.monitor.mirrored_counters import MirroredCounter
from schemas import metrics
from schemas.topics import BROKER_STATE, BROKER_STATE_ROOT
from schemas.transport.access import MqttAccess
from schemas.transport.mqtt.background import BackgroundClient
from schemas.transport.mqtt.connection import Subscription

_RECONNECT_S: Final = 5


class MosquittoMetrics:
    """The metrics of Mosquitto, read by a client that reconnects by itself without a limit."""

    def __init__(self, registry: CollectorRegistry, up: Gauge, broker: MqttAccess) -> None:
        self._up = up
        messages, size = metrics.MQTT_MESSAGES.on(registry), metrics.MQTT_BYTES.on(registry)
        self._setters: dict[str, Callable[[float], None]] = {
            "clients/connected": metrics.MQTT_CLIENTS.on(registry).set,
            "messages/received": MirroredCounter(messages, "received").update,
            "messages/sent": MirroredCounter(messages, "sent").update,
            "publish/messages/dropped": MirroredCounter(messages, "dropped").update,
            "bytes/received": MirroredCounter(size, "received").update,
            "bytes/sent": MirroredCounter(size, "sent").update,
            "store/messages/bytes": metrics.MQTT_STORED.on(registry).set,
        }
        self._broker = broker
        self._client = self._new_client()

    @property
    def certificate_end(self) -> float | None:
        """Unix time at which the broker's certificate ends; None without TLS, and before the first connection."""
        return self._client.certificate_end

    def reconnect(self) -> None:
        """Open another connection in place of the present one; blocks until the latter is closed.

        A second connection by the same certificate would end the first. Raises ConfigError if the monitor's certificate
        cannot be loaded; the present connection stays then.
        """
        client = self._new_client()  # first: it fails while the files of the certificate do not match
        self._client.close()
        self._client = client
        client.start()

    def start(self) -> None:
        """Connect, and receive in a separate thread."""
        self._client.start()

    def measure(self) -> None:
        """Set the metric of the connection. Raises ConnectionError without one."""
        is_connected = self._client.is_connected
        self._up.set(is_connected)
        if not is_connected:
            raise ConnectionError("mosquitto does not answer")

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def _new_client(self) -> BackgroundClient:
        # Without a name: two monitors of one name would end each other's connections.
        return BackgroundClient(
            self._broker, self._on_message, on_connected=self._subscribe, reconnect_max_s=_RECONNECT_S
        )

    def _subscribe(self) -> None:
        self._client.subscribe([Subscription(f"{BROKER_STATE_ROOT}/{topic}") for topic in BROKER_STATE])

    def _on_message(self, topic: str, payload: bytes, _retained: bool) -> None:
        set_value = self._setters.get(topic.removeprefix(f"{BROKER_STATE_ROOT}/"))
        try:
            value = float(payload)
        except ValueError:
            return
        if set_value is not None:
            set_value(value)
