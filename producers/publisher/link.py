"""One MQTT 5 connection of one camera, driven by the asyncio loop that all cameras of a process share."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from typing import Final, Protocol

import structlog
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from producers.publisher.broker import Broker
from producers.publisher.client import FrameClient
from producers.publisher.settings import LinkSettings
from schemas.transport.access import Tls, tls_refusal
from schemas.transport.backoff import Backoff

_log = structlog.get_logger()

_TAKEN_OVER: Final = 0x8E
"""MQTT 5: another connection of the same client id, which with TLS is that of the certificate."""
_LAST_READS: Final = 100_000
"""Packets that may still lie in a socket that is closed for good."""


class LinkUser(Protocol):
    """The callbacks of a link's owner, always on the loop's thread."""

    def on_up(self, session_present: bool, receive_maximum: int) -> None:
        """Connected; `receive_maximum` messages may be unacknowledged."""

    def on_down(self) -> None:
        """The connection is gone."""

    def on_puback(self, mid: int, reason: int) -> None:
        """The broker has answered the message `mid`; reason 16 is that it has no subscriber."""

    def on_message(self, topic: str, payload: bytes, retained: bool) -> None:
        """A message for the camera."""

    def on_read(self) -> None:
        """All that had arrived is handled: the moment to send."""


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


class Link:
    """Connects, reconnects with exponential backoff and jitter, and never waits on the loop's thread.

    paho's `reconnect` would block while it connects: it is given a socket that is connected. In the meantime nobody
    else touches the client. Writes go to the socket at once; the loop watches for writability only when the socket
    took not all.
    """

    def __init__(
        self,
        user: LinkUser,
        client_id: str,
        broker: Broker,
        will: Callable[[], tuple[str, bytes]],
        subscriptions: list[tuple[str, SubscribeOptions]],
        settings: LinkSettings,
        tls: Tls | None = None,
    ) -> None:
        self.up = False
        self.wanted = True
        self.connections = 0
        self._user = user
        self._broker = broker
        self._will = will
        self._subscriptions = subscriptions
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._connecting: asyncio.Future[MQTTErrorCode] | None = None
        self._watched: socket.socket | None = None
        self._writing = False
        self._closed = False
        self._retry_at = 0.0
        self._up_at = 0.0
        self._backoff = Backoff(settings.reconnect_s, settings.reconnect_max_s)
        self._gone = asyncio.Event()
        self._tls = tls.context() if tls is not None else None
        self._client = self._make_client(client_id)

    def tick(self, now: float) -> None:
        """Keep alive, notice a hung broker, connect when it is time. `now` is monotonic, in seconds."""
        if self._closed or self._connecting is not None:
            return
        if self._watched is not None:
            self._client.loop_misc()
            self._flush()
        elif now >= self._retry_at:
            self._connect()

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> int | None:
        """Send at QoS 1; returns the message id, None when there is no connection."""
        if not self.up:
            return None
        info = self._client.publish(topic, payload, 1, retain)
        if self._client.want_write():
            self._watch_writes()
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    @property
    def idle(self) -> bool:
        """Whether `tick` only keeps it alive."""
        return self.up

    @property
    def blocked(self) -> bool:
        """Whether the socket has not yet taken all bytes."""
        return self._client.want_write()

    def cut(self) -> None:
        """Break the connection as a failing network would: the broker publishes the will."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._watched is not None:
            with contextlib.suppress(OSError):  # it is broken already, and the next read reports that
                self._watched.shutdown(socket.SHUT_RDWR)
            self._client.loop_read()

    async def close(self, timeout_s: float) -> None:
        """Disconnect, end the session and release the socket."""
        self._closed = True
        if self._connecting is not None:
            _, waiting = await asyncio.wait([self._connecting], timeout=timeout_s)
            for attempt in waiting:
                attempt.cancel()
        if self.up:
            farewell = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]  # paho's own class has no types
            farewell.SessionExpiryInterval = 0
            self._client.disconnect(properties=farewell)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), timeout_s)
        for _ in range(_LAST_READS):
            self.cut()
            if self._watched is None:
                return

    def _make_client(self, client_id: str) -> FrameClient:
        client = FrameClient(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            on_puback=self._user.on_puback,
        )
        client.connect_timeout = self._settings.connect_timeout_s
        if self._broker.login is not None:
            client.username_pw_set(self._broker.login.user, self._broker.login.password.get_secret_value())
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_socket_close = self._on_socket_close
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's own class has no types
        session.SessionExpiryInterval = self._settings.session_expiry_s
        client.connect_async(
            self._broker.host, self._broker.port, self._settings.keepalive_s, clean_start=False, properties=session
        )
        return client

    def _connect(self) -> None:
        topic, payload = self._will()
        self._client.will_set(topic, payload, 1, retain=True)
        self._connecting = self._loop.create_task(self._dial(), name="mqtt-connect")
        self._connecting.add_done_callback(self._connected)

    async def _dial(self) -> MQTTErrorCode:
        self._client.dialled = await self._broker.dial(self._settings.connect_timeout_s, self._tls)
        return self._client.reconnect()

    def _connected(self, attempt: asyncio.Future[MQTTErrorCode]) -> None:
        """The socket is open, or could not be opened; the broker has not spoken yet."""
        self._connecting = None
        if attempt.cancelled():
            return
        failure = attempt.exception()
        sock = self._client.socket()
        if failure is not None or not isinstance(sock, socket.socket):
            why = None if failure is None else tls_refusal(failure) or str(failure)
            self._broker.complain("mqtt_unreachable", why or "connection closed")
            self._retry_later()
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watched = sock
        self._gone.clear()
        self._loop.add_reader(sock, self._readable)
        self._flush()
        if self._closed:
            self.cut()

    def _readable(self) -> None:
        try:
            self._client.loop_read()
            # The loop does not report bytes that TLS has already taken out of the socket.
            while isinstance(self._watched, ssl.SSLSocket) and self._watched.pending():
                self._client.loop_read()
        except Exception:
            # Bytes that paho cannot read must not end the camera: the connection goes, and is made again.
            _log.exception("mqtt_read_failed")
            self.cut()
        self._flush()
        self._user.on_read()

    def _flush(self) -> None:
        if self._watched is not None and self._client.want_write():
            self._client.loop_write()
            if self._client.want_write():
                self._watch_writes()

    def _watch_writes(self) -> None:
        if not self._writing and self._watched is not None:
            self._writing = True
            self._loop.add_writer(self._watched, self._writable)

    def _writable(self) -> None:
        self._client.loop_write()
        if self._watched is not None and not self._client.want_write():
            self._writing = False
            self._loop.remove_writer(self._watched)
            self._user.on_read()

    def _retry_later(self) -> None:
        self._retry_at = time.monotonic() + self._backoff.next_s()

    def _on_connect(
        self, client: Client, _: object, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._broker.complain("mqtt_refused", str(reason))
            return
        if not flags.session_present:
            # The broker forgot what it had not handled: the window sends it again, so paho must not.
            client.drop_out_messages()
        if self._subscriptions:
            client.subscribe(self._subscriptions)
        self.up = True
        self.connections += 1
        self._up_at = time.monotonic()
        self._user.on_up(flags.session_present, getattr(properties, "ReceiveMaximum", 65_535))

    def _on_disconnect(
        self, _client: Client, _: object, _flags: DisconnectFlags, reason: ReasonCode, _properties: object
    ) -> None:
        if self._connecting is not None:
            return  # `_connected` finds the socket gone
        was_up, self.up = self.up, False
        if was_up and time.monotonic() - self._up_at > self._settings.steady_s:
            self._backoff.reset()
        if reason.value == _TAKEN_OVER:
            # Another device holds this camera's certificate: the two alternate instead of fighting. Mosquitto 2.0
            # ends a connection that is taken over without a word: there the growing waits have to do.
            self._backoff.reset(self._settings.taken_over_s)
        self._retry_later()
        if not self._closed:
            self._broker.complain("mqtt_disconnected", str(reason))
        if was_up:
            self._user.on_down()

    def _on_message(self, _client: Client, _: object, message: MQTTMessage) -> None:
        self._user.on_message(message.topic, bytes(message.payload), message.retain)

    def _on_socket_close(self, _client: Client, _: object, _sock: object) -> None:
        sock, self._watched = self._watched, None
        if sock is not None:
            self._gone.set()
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)
            self._writing = False
