"""The bridge's MQTT connection, its subscriptions, and the switch that accepts or rejects frames."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from producers.bridge.mqtt.broker_log import LOG_FILTER
from producers.bridge.mqtt.client import OnPublish, PacketClient
from producers.bridge.settings import BridgeSettings
from schemas.limits import MAX_BROKER_BYTES
from schemas.runtime.health import Health
from schemas.topics import Channel, every_camera_filter, shared_filter
from schemas.transport.mqtt.connection import MqttConnection, Retries, Session, Subscription

log = structlog.get_logger()

RETRIES: Final = Retries(connect_s=5.0, first_s=0.1, longest_s=2.0, steady_s=10.0)
TICK_S: Final = 0.5
"""Interval between two checks of keep-alive, in seconds."""
CLOSE_S: Final = 10.0
"""Time limit for writing the queued bytes at the end."""


class Link(MqttConnection):
    """The connection of a bridge, subscribed as long as there is a broker. Each session starts clean."""

    def __init__(
        self,
        settings: BridgeSettings,
        on_publish: OnPublish,
        on_open: Callable[[], None],
        health: Health,
        gathers: Callable[[], bool] = lambda: False,
    ) -> None:
        """`on_open` is called before any message of a new connection can arrive.
        While `gathers` is true after a small read, nothing more is read until `read_gathered`: one large read takes
        less time than many small ones.
        """
        self._packets = PacketClient(settings.name, on_publish)
        super().__init__(
            self._packets,
            settings.broker,
            Session(
                settings.keepalive_s,
                True,
                {
                    "SessionExpiryInterval": 0,
                    "ReceiveMaximum": settings.receive_maximum,
                    "MaximumPacketSize": MAX_BROKER_BYTES,
                },
            ),
            RETRIES,
        )
        self._settings = settings
        self._frame_filters = [shared_filter(settings.group, Channel.FRAME)]
        # The broker sends retained messages (`status`, `meta`) to plain filters only, so each bridge forwards those of
        # all cameras. Equal messages have equal event ids.
        self._event_filters = [
            shared_filter(settings.group, Channel.EVENT),
            every_camera_filter(Channel.STATUS),
            every_camera_filter(Channel.META),
        ]
        self._on_open = on_open
        self._health = health
        self._is_subscribed = False
        self._held: list[str] = []
        """The filters without a subscription."""
        self._log_asked: int | None = None
        self._has_failed = False
        self._gathers = gathers
        self._gathering: socket.socket | None = None
        health.set("mqtt", False, "not connected yet")

    @property
    def writable(self) -> bool:
        """Whether the link is subscribed and its socket accepts bytes."""
        return self._is_subscribed and not self.blocked

    def hold_frames(self, hold: bool) -> None:
        """Stop accepting frames, or accept them again.

        Without a subscriber the broker stores no frame, and cameras send unconfirmed frames again.
        """
        self._hold(self._frame_filters, hold)

    def hold_events(self, hold: bool) -> None:
        """Stop accepting ledgers, `status` and `meta`, or accept them again.

        Cameras send unconfirmed ledgers again, and the broker sends the retained messages after the subscription.
        """
        self._hold(self._event_filters, hold)

    def _hold(self, filters: Sequence[str], hold: bool) -> None:
        self._held = [name for name in self._held if name not in filters] + (list(filters) if hold else [])
        if not self.up:
            return
        if hold:
            for name in filters:
                self.unsubscribe(name)
        else:
            self.subscribe([Subscription(name, 1) for name in filters])

    def read_gathered(self) -> None:
        """Read all bytes that arrived while reading was suspended, and resume reading."""
        gathering, self._gathering = self._gathering, None
        if gathering is not None and gathering is self._socket and not self.is_paused:
            # By number: of a socket that is not registered, the selector formats the addresses for an error.
            self._loop.add_reader(gathering.fileno(), self._readable)
            super()._readable()

    def _readable(self) -> None:
        super()._readable()
        if self._socket is not None and self._packets.is_caught_up and self._gathers():
            self._gathering = self._socket
            self._loop.remove_reader(self._socket.fileno())

    async def run(self, tick_s: float | None = None) -> None:
        """Stay connected until closed or cancelled, and check the keep-alive this often, in seconds."""
        await super().run(TICK_S if tick_s is None else tick_s)

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """Write the queued bytes, then DISCONNECT."""
        await super().close(timeout_s)
        self._is_subscribed = False

    def _opening(self) -> None:
        self._has_failed = False
        self._on_open()

    def _opened(self, _session_present: bool, _receive_maximum: int, _packet_bytes: int) -> None:
        names = [name for name in (*self._event_filters, *self._frame_filters) if name not in self._held]
        if names:
            self.subscribe([Subscription(name, 1) for name in names])
        else:
            self._subscribed()
        # A separate subscription, because a broker need not publish its log.
        self._log_asked = self.subscribe([Subscription(LOG_FILTER, 0)])

    def _subscription_answered(self, mid: int, refusals: list[str]) -> None:
        if mid == self._log_asked:
            return
        if refusals:
            self._failed("mqtt_subscription_refused", f"the broker refuses a subscription: {refusals[0]}")
            self.disconnect()
            return
        self._subscribed()

    def _subscribed(self) -> None:
        self._is_subscribed = True
        self._health.set("mqtt", True)
        log.info("subscribed", broker="{}:{}".format(*self._settings.broker.address))

    def _lost(self, reason: str) -> None:
        self._is_subscribed = False
        if not self.is_closing and not self._has_failed:  # the refusal is the reason, not the end that follows it
            self._failed("mqtt_disconnected", reason)

    def _failed(self, event: str, reason: str) -> None:
        self._has_failed = True
        self._health.set("mqtt", False, reason)
        log.warning(event, broker="{}:{}".format(*self._settings.broker.address), reason=reason)

    def _taken_over(self) -> None:
        log.error("name_taken_over", name=self._settings.name)
