"""The bridge's MQTT connection on the event loop: reconnected without limit, read and written without threads."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

import structlog
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from producers.bridge.mqtt.broker_log import LOG_FILTER
from producers.bridge.mqtt.client import OnPublish, PacketClient
from producers.bridge.settings import BridgeSettings
from schemas.runtime.health import Health
from schemas.topics import Channel, every_camera_filter, shared_filter
from schemas.transport.access import secured_on_loop, tls_refusal
from schemas.transport.backoff import Backoff

log = structlog.get_logger()

CONNECT_S: Final = 5.0
BACKOFF_S: Final = (0.1, 2.0)
"""First and longest wait between two tries to connect."""
STEADY_S: Final = 10.0
"""A connection that lasted so long is made again at once. Two bridges of one name, which throw each other out, or a
broker that accepts and hangs, are given ever longer waits instead."""
TICK_S: Final = 0.5
"""Interval between two checks of keep-alive, in seconds."""
TAKEN_OVER: Final = 0x8E

# The broker hands what it retains (`status`, `meta`) to plain filters only, so each bridge forwards those of all
# cameras; equal ones have equal event ids.
_PLAIN: Final = (Channel.STATUS, Channel.META)


def frame_filter(settings: BridgeSettings) -> str:
    """Return the topic filter of frames."""
    return shared_filter(settings.group, Channel.FRAME)


def event_filters(settings: BridgeSettings) -> list[str]:
    """Return the topic filters of everything else."""
    return [shared_filter(settings.group, Channel.EVENT), *(every_camera_filter(channel) for channel in _PLAIN)]


class Link:
    """One MQTT client, connected and subscribed as long as there is a broker."""

    def __init__(
        self, settings: BridgeSettings, on_publish: OnPublish, on_open: Callable[[], None], health: Health
    ) -> None:
        """`on_open` is called before anything of a new connection can come."""
        self._settings = settings
        self._on_open = on_open
        self._health = health
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[str] = self._loop.create_future()
        self._subscribed = False
        self._paused = False
        self._holds_frames = False
        self._log_asked: int | None = None
        self._closing = False
        self._reading: socket.socket | None = None
        client = self._client = PacketClient(settings.name, on_publish)
        client.configure(
            *settings.broker.address,
            keepalive_s=settings.keepalive_s,
            receive_maximum=settings.receive_maximum,
        )
        if (login := settings.broker.login) is not None:
            client.username_pw_set(login.user, login.password.get_secret_value())
        client.on_connect = self._connected
        client.on_subscribe = self._suback
        client.on_disconnect = self._disconnected
        client.on_socket_open = self._socket_open
        client.on_socket_close = self._socket_close
        client.on_socket_register_write = self._wants_write
        client.on_socket_unregister_write = self._wrote
        health.set("mqtt", False, "not connected yet")

    @property
    def writable(self) -> bool:
        """Subscribed, and the broker takes what is written."""
        return self._subscribed and not self._client.want_write()

    @property
    def paused(self) -> bool:
        """Nothing is read."""
        return self._paused

    def pause(self) -> None:
        """Stop reading: what comes waits at the broker."""
        self._paused = True
        self._read_or_wait()

    def resume(self) -> None:
        """Read again."""
        self._paused = False
        self._read_or_wait()

    def hold_frames(self, hold: bool) -> None:
        """Take no more frames for now, or take them again.

        Without a subscriber the broker keeps none, and cameras send again what is not confirmed.
        """
        self._holds_frames = hold
        if self._client.is_connected():
            if hold:
                self._client.unsubscribe(frame_filter(self._settings))
            else:
                self._client.subscribe(frame_filter(self._settings), qos=1)

    def send(self, packets: bytes) -> None:
        """Write whole packets; without a connection they are dropped."""
        self._client.send(packets)

    async def run(self) -> None:
        """Stay connected until closed or cancelled."""
        backoff = Backoff(*BACKOFF_S)
        try:
            while True:
                began = self._loop.time()
                try:
                    reason = await self._session()
                except OSError as error:
                    reason = tls_refusal(error) or f"{type(error).__name__}: {error}"
                if self._closing:
                    return
                if self._loop.time() - began > STEADY_S:
                    backoff.reset()
                self._subscribed = False
                self._health.set("mqtt", False, reason)
                log.warning("mqtt_disconnected", reason=reason)
                await backoff.wait()
        finally:
            self._subscribed = False
            self._client.drop()

    async def close(self) -> None:
        """Write what is queued, then DISCONNECT, and wait until both are written."""
        self._closing = True
        if self._reading is not None:
            self._client.disconnect()
            await asyncio.wait({self._closed})

    async def _session(self) -> str:
        connected = await self._dial()
        self._closed = self._loop.create_future()
        self._on_open()
        self._client.adopt(connected)
        while not self._closed.done():
            await asyncio.wait({self._closed}, timeout=TICK_S)
            if self._paused:
                self._client.excuse_silence()
            self._client.loop_misc()
        return self._closed.result()

    async def _dial(self) -> socket.socket:
        host, port = self._settings.broker.address
        refusal: OSError = ConnectionError(f"{host} has no address")
        async with asyncio.timeout(CONNECT_S):
            for family, kind, protocol, _, address in await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                sock = socket.socket(family, kind, protocol)
                try:
                    sock.setblocking(False)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    await self._loop.sock_connect(sock, address)
                except OSError as error:
                    sock.close()
                    refusal = error
                except BaseException:
                    sock.close()
                    raise
                else:
                    return await self._secured(sock)
        raise refusal

    async def _secured(self, sock: socket.socket) -> socket.socket:
        """Return the socket with TLS if the settings ask for it."""
        tls = self._settings.broker.tls
        if tls is None:
            return sock
        try:
            context = tls.context()
        except BaseException:
            sock.close()
            raise
        return await secured_on_loop(sock, context, self._settings.broker.host)

    def _read_or_wait(self) -> None:
        if self._reading is None:
            return
        if self._paused:
            self._loop.remove_reader(self._reading)
        else:
            self._loop.add_reader(self._reading, self._guarded, self._client.loop_read)

    def _guarded(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception:
            # An exception here would leave the packet half handled and the connection open.
            log.exception("mqtt_read_failed")
            self._client.drop()

    def _socket_open(self, _client: Client, _userdata: Any, sock: Any) -> None:
        self._reading = sock
        self._read_or_wait()

    def _socket_close(self, _client: Client, _userdata: Any, sock: Any) -> None:
        self._reading = None
        self._loop.remove_reader(sock)
        self._loop.remove_writer(sock)

    def _wants_write(self, client: Client, _userdata: Any, sock: Any) -> None:
        self._loop.add_writer(sock, self._guarded, client.loop_write)

    def _wrote(self, _client: Client, _userdata: Any, sock: Any) -> None:
        self._loop.remove_writer(sock)

    def _connected(
        self, client: Client, _userdata: Any, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            log.error("mqtt_connection_refused", reason=str(reason))
            return
        names = event_filters(self._settings)
        if not self._holds_frames:
            names.append(frame_filter(self._settings))
        client.subscribe([(name, SubscribeOptions(qos=1)) for name in names])
        # A subscription on its own: a broker that does not publish its log works as well.
        _, self._log_asked = client.subscribe(LOG_FILTER, options=SubscribeOptions(qos=0))

    def _suback(
        self, client: Client, _userdata: Any, mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        if mid == self._log_asked:
            return
        if any(reason.is_failure for reason in reasons):
            log.error("subscription_refused", reasons=[str(reason) for reason in reasons])
            client.disconnect()
            return
        self._subscribed = True
        self._read_or_wait()
        self._health.set("mqtt", True)
        log.info("subscribed", broker="{}:{}".format(*self._settings.broker.address))

    def _disconnected(
        self,
        _client: Client,
        _userdata: Any,
        _flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.value == TAKEN_OVER:
            log.error("name_taken_over", name=self._settings.name)
        if not self._closed.done():
            self._closed.set_result(str(reason))
