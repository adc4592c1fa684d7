"""One MQTT connection on the event loop: dialled, read, written, kept alive and made again."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import structlog
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from schemas.transport.access import MqttAccess, tls_refusal
from schemas.transport.backoff import Backoff
from schemas.transport.mqtt.dial import dial
from schemas.transport.mqtt.internals import SocketClient
from schemas.waiting import wait_at_most

_log = structlog.get_logger()

TAKEN_OVER: Final = 0x8E
"""MQTT 5 reason code: another connection has the same client id, which with TLS is the name in the certificate."""
PACKET_TOO_LARGE: Final = 0x95
"""MQTT 5 reason code: a packet is larger than the broker accepts."""
LARGEST_PACKET: Final = 5 + 268_435_455
"""Bytes of the largest packet that MQTT can encode, the limit of a broker that announces none."""


class Subscription(NamedTuple):
    """A topic filter and its options, MQTT 5, section 3.8.3.1."""

    topic_filter: str
    qos: int = 0
    no_local: bool = False
    retain_handling: int = 0

    @property
    def options(self) -> SubscribeOptions:
        """The options for paho."""
        return SubscribeOptions(self.qos, self.no_local, retainHandling=self.retain_handling)


@dataclass(frozen=True)
class Session:
    """The fields of CONNECT, except the will."""

    keepalive_s: int
    clean_start: bool
    properties: Mapping[str, int] = field(default_factory=dict)
    """MQTT 5 properties by paho's names, such as `SessionExpiryInterval`."""


@dataclass(frozen=True)
class Retries:
    """Time limit of a dial, and delays before the next one, in seconds."""

    connect_s: float
    first_s: float
    longest_s: float
    steady_s: float
    """A longer connection is replaced after the first delay, a shorter one after growing delays: two clients with one
    name disconnect each other, and a broker may accept and hang."""
    taken_over_s: float | None = None
    """Delay bound after another client has connected under the same name; None continues the growing delays. Mosquitto
    2.0 closes such a connection without a reason, so that the growing delays hold in any case."""


class _Events:
    """Events that a connection may ignore."""

    def _taken_over(self) -> None:
        """React to another client's connection under the same name."""

    def _subscription_answered(self, mid: int, refusals: list[str]) -> None:
        """React to the broker's answer to the SUBSCRIBE `mid`; `refusals` are its reasons against single filters."""

    def _received(self, topic: str, payload: bytes, retained: bool) -> None:
        """React to a message that the client left to paho."""

    def _read_done(self) -> None:
        """React to the end of a read, when all that had arrived is handled, or to a socket that accepts bytes again."""


class MqttConnection(_Events, ABC):
    """Connects, reconnects with backoff and jitter, and never blocks the loop.

    The owner calls `tick` regularly, or awaits `run`. Writes go to the socket at once; the loop watches for
    writability only while the socket has not accepted all bytes. While a connection is dialled, only this class may
    touch the client. All methods belong to the loop's thread.
    """

    def __init__(self, client: SocketClient, broker: MqttAccess, session: Session, retries: Retries) -> None:
        """Raises ConfigError if the certificates cannot be loaded."""
        self.up = False
        """Whether the broker has accepted the connection."""
        self.connections = 0
        """The number of accepted connections."""
        self.is_paused = False
        """Whether nothing is read."""
        self.is_closing = False
        """Whether the connection is closed for good."""
        self._client = client
        self._address = broker.address
        self._tls = broker.tls.context() if broker.tls is not None else None
        self._retries = retries
        self._loop = asyncio.get_running_loop()
        self._connecting: asyncio.Task[MQTTErrorCode] | None = None
        self._socket: socket.socket | None = None
        self._is_write_watched = False
        self._gone = asyncio.Event()
        self._retry_at = 0.0
        self._up_at = 0.0
        self._backoff = Backoff(retries.first_s, retries.longest_s)
        self._refused_bytes = LARGEST_PACKET + 1
        """The size from which the broker has refused packets, until a steady connection ends."""
        client.connect_timeout = retries.connect_s
        if broker.login is not None:
            client.username_pw_set(broker.login.user, broker.login.password.get_secret_value())
        client.on_connect = self._connack
        client.on_disconnect = self._disconnected
        client.on_message = self._message
        client.on_subscribe = self._suback
        client.on_socket_close = self._socket_closed
        client.connect_async(
            *self._address,
            session.keepalive_s,
            clean_start=session.clean_start,
            properties=_properties(PacketTypes.CONNECT, session.properties),
        )

    @abstractmethod
    def _opening(self) -> None:
        """React to a connected socket; CONNECT follows."""

    @abstractmethod
    def _opened(self, session_present: bool, receive_maximum: int, packet_bytes: int) -> None:
        """React to an accepted connection. The broker accepts `receive_maximum` unacknowledged messages, and packets of
        at most `packet_bytes`."""

    @abstractmethod
    def _lost(self, reason: str) -> None:
        """React to the end of the connection, also if it was never accepted."""

    @abstractmethod
    def _failed(self, event: str, reason: str) -> None:
        """React to a failed attempt; `event` is `mqtt_unreachable` or `mqtt_refused`."""

    async def _dial(self) -> socket.socket:
        """Return a connected socket."""
        return await dial(*self._address, self._retries.connect_s, self._tls)

    @property
    def is_dialling(self) -> bool:
        """Whether it waits for a socket; until then `tick` does nothing."""
        return self._connecting is not None

    @property
    def blocked(self) -> bool:
        """Whether the socket has not yet accepted all bytes."""
        return self._client.want_write()

    def tick(self, now: float) -> None:
        """Keep alive, detect a hung broker, connect when it is time. `now` is monotonic, in seconds."""
        if self.is_closing or self._connecting is not None:
            return
        if self._socket is not None:
            if self.is_paused:
                self._client.excuse_silence()
            self._client.extend_ping()
            self._client.loop_misc()
            self._flush()
        elif now >= self._retry_at:
            self._connecting = self._loop.create_task(self._connect(), name="mqtt-connect")
            self._connecting.add_done_callback(self._connected)

    async def run(self, tick_s: float) -> None:
        """Stay connected until closed or cancelled, and tick this often."""
        try:
            while not self.is_closing:
                self.tick(time.monotonic())
                if self._connecting is not None:
                    await asyncio.wait([self._connecting])
                elif self._socket is None:
                    await asyncio.sleep(max(0.0, self._retry_at - time.monotonic()))
                else:
                    await wait_at_most(self._gone, tick_s)
        finally:
            self.is_closing = True
            self.cut()

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> int | None:
        """Send at QoS 1; returns the message id, None when there is no connection."""
        if not self.up:
            return None
        info = self._client.publish(topic, payload, 1, retain)
        self._watch_rest()
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def subscribe(self, subscriptions: Iterable[Subscription]) -> int | None:
        """Send one SUBSCRIBE and return its message id; None when there is no connection."""
        _, mid = self._client.subscribe([(each.topic_filter, each.options) for each in subscriptions])
        self._watch_rest()
        return mid

    def unsubscribe(self, topic_filter: str) -> None:
        """Send UNSUBSCRIBE."""
        self._client.unsubscribe(topic_filter)
        self._watch_rest()

    def send(self, packets: bytes) -> None:
        """Write whole packets; without a connection they are dropped."""
        self._client.send(packets)
        self._watch_rest()

    def pause(self) -> None:
        """Stop reading: messages wait at the broker."""
        if not self.is_paused:
            self.is_paused = True
            if self._socket is not None:
                self._loop.remove_reader(self._socket)

    def resume(self) -> None:
        """Read again."""
        if self.is_paused:
            self.is_paused = False
            if self._socket is not None:
                self._loop.add_reader(self._socket, self._readable)
                self._loop.call_soon(self._read_rest)

    def disconnect(self) -> None:
        """Send DISCONNECT after the queued packets, and end the session. The connection is made again unless closed."""
        self._client.disconnect(properties=_properties(PacketTypes.DISCONNECT, {"SessionExpiryInterval": 0}))
        self._watch_rest()

    def cut(self) -> None:
        """Break the connection without DISCONNECT: the broker publishes the will. Not from a hook of this class."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._socket is not None:
            self._client.lose()

    async def close(self, timeout_s: float) -> None:
        """Write what is queued, disconnect, end the session and release the socket."""
        self.is_closing = True
        if self._connecting is not None:
            _, waiting = await asyncio.wait([self._connecting], timeout=timeout_s)
            for attempt in waiting:
                attempt.cancel()
        if self.up:
            self.disconnect()
            await wait_at_most(self._gone, timeout_s)
        self.cut()

    async def _connect(self) -> MQTTErrorCode:
        dialled = await self._dial()
        self._opening()
        return self._client.adopt(dialled)

    def _connected(self, attempt: asyncio.Task[MQTTErrorCode]) -> None:
        """React to an open socket, or to a failure to open it; the broker has not answered yet."""
        self._connecting = None
        if attempt.cancelled():
            return
        failure = attempt.exception()
        sock = self._client.socket()
        if failure is not None or not isinstance(sock, socket.socket):
            reason = "connection closed" if failure is None else tls_refusal(failure) or str(failure)
            self._retry_at = time.monotonic() + self._backoff.next_s()
            self._failed("mqtt_unreachable", reason or type(failure).__name__)
            return
        self._socket = sock
        self._gone.clear()
        if not self.is_paused:
            self._loop.add_reader(sock, self._readable)
        self._flush()
        if self.is_closing:
            self.cut()

    def _readable(self) -> None:
        try:
            self._client.loop_read()
            # The loop does not report bytes that TLS has already taken out of the socket.
            while isinstance(self._socket, ssl.SSLSocket) and not self.is_paused and self._socket.pending():
                self._client.loop_read()
        except Exception:
            # Bytes that cannot be read, or a defect in a handler, cost the connection and nothing else.
            _log.exception("mqtt_read_failed")
            self.cut()
        self._flush()
        self._read_done()

    def _read_rest(self) -> None:
        """Read bytes that TLS took out of the socket before the pause."""
        if isinstance(self._socket, ssl.SSLSocket) and not self.is_paused and self._socket.pending():
            self._readable()

    def _flush(self) -> None:
        if self._socket is not None and self._client.want_write():
            self._client.loop_write()
            self._watch_rest()

    def _watch_rest(self) -> None:
        """Watch for writability if the socket has not accepted all bytes."""
        if not self._is_write_watched and self._socket is not None and self._client.want_write():
            self._is_write_watched = True
            self._loop.add_writer(self._socket, self._writable)

    def _writable(self) -> None:
        try:
            self._client.loop_write()
        except Exception:
            _log.exception("mqtt_write_failed")
            self.cut()
        if self._socket is not None and not self._client.want_write():
            self._is_write_watched = False
            self._loop.remove_writer(self._socket)
            self._read_done()

    def _connack(
        self, _client: Client, _: object, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._failed("mqtt_refused", str(reason))
            return
        self.up = True
        self.connections += 1
        self._up_at = time.monotonic()
        announced = getattr(properties, "MaximumPacketSize", LARGEST_PACKET)
        packet_bytes = min(announced, self._refused_bytes - 1)
        self._opened(flags.session_present, getattr(properties, "ReceiveMaximum", 65_535), packet_bytes)

    def _suback(
        self, _client: Client, _: object, mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._subscription_answered(mid, [str(each) for each in reasons if each.is_failure])

    def _message(self, _client: Client, _: object, message: MQTTMessage) -> None:
        self._received(message.topic, bytes(message.payload), message.retain)

    def _disconnected(
        self, _client: Client, _: object, _flags: DisconnectFlags, reason: ReasonCode, _properties: object
    ) -> None:
        if self._connecting is not None:
            return  # `_connected` finds the socket closed
        was_up, self.up = self.up, False
        if was_up and time.monotonic() - self._up_at > self._retries.steady_s:
            self._backoff.reset()
            self._refused_bytes = LARGEST_PACKET + 1
        if reason.value == PACKET_TOO_LARGE and (largest := self._client.largest_packet()):
            # A broker need not announce its limit. The largest packet is the refused one, or exceeds the limit too.
            self._refused_bytes = min(self._refused_bytes, largest)
        if reason.value == TAKEN_OVER:
            if self._retries.taken_over_s is not None:
                self._backoff.reset(self._retries.taken_over_s)
            self._taken_over()
        self._retry_at = time.monotonic() + self._backoff.next_s()
        self._lost(str(reason))

    def _socket_closed(self, _client: Client, _: object, _sock: Any) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            self._gone.set()
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)
            self._is_write_watched = False


def _properties(kind: int, values: Mapping[str, int]) -> Properties:
    made = Properties(kind)  # type: ignore[no-untyped-call]  # paho's own class has no types
    for name, value in values.items():
        setattr(made, name, value)
    return made
