"""One MQTT 5 connection of one camera, driven by the asyncio loop that all cameras of a process share."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Protocol

from producers.publisher.broker import Broker
from producers.publisher.client import FrameClient
from producers.publisher.settings import LinkSettings
from schemas.transport.access import MqttAccess, Tls
from schemas.transport.mqtt.connection import MqttConnection, Retries, Session, Subscription


class LinkUser(Protocol):
    """The callbacks of a link's owner, always on the loop's thread."""

    def on_up(self, session_present: bool, receive_maximum: int, packet_bytes: int) -> None:
        """Handle a new connection; `receive_maximum` messages may be unacknowledged, of `packet_bytes` at most each."""

    def on_puback(self, mid: int, reason: int) -> None:
        """Handle the PUBACK of the message `mid`; reason 16 means that it has no subscriber."""

    def on_message(self, topic: str, payload: bytes, retained: bool) -> None:
        """Handle a message for the camera."""

    def on_read(self) -> None:
        """Handle the end of a read: all received messages have been handled."""


class Connection(Protocol):
    """The connection of one camera: a `Link`, or a decorator of one."""

    @property
    def up(self) -> bool:
        """Whether it is connected."""
        ...

    @property
    def wanted(self) -> bool:
        """Whether it should be connected."""
        ...

    @property
    def idle(self) -> bool:
        """Whether `tick` only keeps it alive."""
        ...

    @property
    def subscription_refused(self) -> bool:
        """Whether the broker has refused a topic of the camera on this connection."""
        ...

    @property
    def connections(self) -> int:
        """The number of connections since the start."""
        ...

    @property
    def blocked(self) -> bool:
        """Whether the socket has not yet taken all bytes."""
        ...

    def tick(self, now: float) -> None:
        """Keep alive or connect. `now` is monotonic, in seconds."""
        ...

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> int | None:
        """Send at QoS 1; returns the message id, None when there is no connection."""
        ...

    async def close(self, timeout_s: float) -> None:
        """Disconnect, end the session and release the socket."""
        ...


class Link(MqttConnection):
    """The connection of one camera: a persistent session, a will, and frames whose acknowledgements are reported."""

    def __init__(
        self,
        user: LinkUser,
        client_id: str,
        broker: Broker,
        will: Callable[[], tuple[str, bytes]],
        subscriptions: list[Subscription],
        settings: LinkSettings,
        tls: Tls | None = None,
    ) -> None:
        super().__init__(
            FrameClient(client_id, user.on_puback),
            MqttAccess(broker.host, broker.port, tls, broker.login),
            Session(settings.keepalive_s, False, {"SessionExpiryInterval": settings.session_expiry_s}),
            Retries(
                settings.connect_timeout_s,
                settings.reconnect_s,
                settings.reconnect_max_s,
                settings.steady_s,
                settings.taken_over_s,
            ),
        )
        self.wanted = True
        self.subscription_refused = False
        """Whether the broker has refused a topic of the camera on this connection."""
        self._subscribe_again_s = settings.reconnect_max_s
        self._subscribe_at = 0.0
        self._user = user
        self._broker = broker
        self._will = will
        self._subscriptions = subscriptions

    @property
    def idle(self) -> bool:
        """Whether `tick` only keeps it alive, or has nothing to do until the broker is dialled."""
        return self.up or self.is_dialling

    def tick(self, now: float) -> None:
        """Keep alive, connect, or send a refused subscription again. `now` is monotonic, in seconds."""
        super().tick(now)
        if self.up and self.subscription_refused and now >= self._subscribe_at:
            self._subscribe_at = now + self._subscribe_again_s
            self.subscribe(self._subscriptions)

    async def _dial(self) -> socket.socket:
        async with self._broker.dialling:
            return await super()._dial()

    def _opening(self) -> None:
        topic, payload = self._will()
        self._client.will_set(topic, payload, 1, retain=True)

    def _opened(self, session_present: bool, receive_maximum: int, packet_bytes: int) -> None:
        if not session_present or self._client.largest_packet() > packet_bytes:
            # The broker has lost its unacknowledged messages, or refuses one. The window sends them again, so paho must
            # not.
            session_present = False
            self._client.drop_out_messages()
        self.subscription_refused = False
        if self._subscriptions:
            self.subscribe(self._subscriptions)
        self._user.on_up(session_present, receive_maximum, packet_bytes)

    def _lost(self, reason: str) -> None:
        if not self.is_closing:
            self._broker.log_problem("mqtt_disconnected", reason)

    def _failed(self, event: str, reason: str) -> None:
        self._broker.log_problem(event, reason)

    def _subscription_answered(self, mid: int, refusals: list[str]) -> None:
        # Frames still reach Kafka, so it stays connected. Without the topic of confirmations, the spool keeps them all.
        self.subscription_refused = bool(refusals)
        if refusals:
            self._subscribe_at = time.monotonic() + self._subscribe_again_s
            self._failed("mqtt_subscription_refused", refusals[0])

    def _read_done(self) -> None:
        self._user.on_read()

    def _received(self, topic: str, payload: bytes, retained: bool) -> None:
        self._user.on_message(topic, payload, retained)
