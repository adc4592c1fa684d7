"""An MQTT client in a thread, for commands and pollers with a few messages a second."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable

import structlog
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from schemas.errors import BrokerError
from schemas.transport.access import MqttAccess, certificate_end
from schemas.transport.mqtt.connection import Subscription
from schemas.transport.mqtt.internals import MessageClient

_log = structlog.get_logger()

OnMessage = Callable[[str, bytes, bool], None]
"""A callback for each message: topic, payload, and whether the broker had retained the message."""


class BackgroundClient:
    """A client that connects and reconnects by itself. The callbacks run in the client's thread."""

    def __init__(
        self,
        broker: MqttAccess,
        on_message: OnMessage,
        *,
        name: str = "",
        on_connected: Callable[[], None] = lambda: None,
        on_subscribed: Callable[[], None] = lambda: None,
        will: tuple[str, str] | None = None,
        reconnect_max_s: int = 120,
    ) -> None:
        """`name` is the client id, empty for one that the broker chooses; `will` is a topic and its retained payload.

        Raises ConfigError if the certificates cannot be loaded.
        """
        self.refusal = "not connected yet"
        """The reason why there is no connection."""
        self.subscription_refusal = ""
        """The broker's reason against the newest subscription, empty if it accepted all topics."""
        self.certificate_end: float | None = None
        """Unix time at which the certificate ends that the broker presented to the last connection; None without TLS,
        and before the first connection."""
        self._broker = broker
        self._apply_message = on_message
        self._on_connected = on_connected
        self._on_subscribed = on_subscribed
        self._refused: dict[int, str] = {}
        """Reasons of the broker against messages, by their ids, of which there are 65,535."""
        client = self._client = MessageClient(name)
        client.reconnect_delay_set(1, reconnect_max_s)
        if will is not None:
            client.will_set(*will, qos=1, retain=True)
        if broker.tls is not None:
            client.tls_set_context(broker.tls.context())
        if broker.login is not None:
            client.username_pw_set(broker.login.user, broker.login.password.get_secret_value())
        client.on_connect = self._connack
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._suback
        client.on_publish = self._published
        client.on_message = self._message

    @property
    def is_connected(self) -> bool:
        """Whether the broker accepts messages."""
        return self._client.is_connected()

    def connect(self) -> None:
        """Open the first connection and start the thread. Raises OSError if the broker cannot be reached."""
        self._client.connect(*self._broker.address)
        self._client.loop_start()

    def start(self) -> None:
        """Start the thread, which connects as soon as the broker can be reached."""
        self._client.connect_async(*self._broker.address)
        self._client.loop_start()

    def subscribe(self, subscriptions: Iterable[Subscription]) -> None:
        """Send one SUBSCRIBE."""
        self._client.subscribe([(each.topic_filter, each.options) for each in subscriptions])

    def publish(self, topic: str, payload: str | bytes, *, retain: bool = True, wait_s: float = 0.0) -> bool:
        """Send at QoS 1, wait at most `wait_s` seconds, and return whether the broker has acknowledged it.

        Raises BrokerError if the broker refuses a message that is waited for.
        """
        sent = self._client.publish(topic, payload, 1, retain)
        try:
            if wait_s:
                sent.wait_for_publish(wait_s)
            done = sent.is_published()
        except (ValueError, RuntimeError):  # there is no connection
            return False
        if wait_s and done and sent.mid in self._refused:
            raise BrokerError(
                f"MQTT broker: expected it to accept a message on {topic}, got {self._refused[sent.mid]!r}. Check the "
                "rights of this client."
            )
        return done

    def close(self) -> None:
        """Disconnect and end the thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def _connack(
        self, client: Client, _: object, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        link = client.socket()
        if isinstance(link, ssl.SSLSocket):
            self.certificate_end = certificate_end(link)
        if reason.is_failure:
            self.refusal = str(reason)
            _log.warning("mqtt_refused", broker="{}:{}".format(*self._broker.address), reason=self.refusal)
        else:
            self._on_connected()

    def _suback(
        self, _client: Client, _: object, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self.subscription_refusal = next((str(each) for each in reasons if each.is_failure), "")
        if self.subscription_refusal:
            broker = "{}:{}".format(*self._broker.address)
            _log.warning("mqtt_subscription_refused", broker=broker, reason=self.subscription_refusal)
        self._on_subscribed()

    def _published(
        self, _client: Client, _: object, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._refused.pop(mid, None)
        if reason.is_failure:
            self._refused[mid] = str(reason)

    def _disconnected(
        self, _client: Client, _: object, _flags: DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self.refusal = str(reason)

    def _message(self, _client: Client, _: object, message: MQTTMessage) -> None:
        try:
            self._apply_message(message.topic, bytes(message.payload), message.retain)
        except Exception:
            # An exception would end the thread, and the client with it, without a disconnect.
            _log.exception("mqtt_message_failed", topic=message.topic)
