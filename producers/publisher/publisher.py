"""A camera's publisher: the order of messages to the broker, and their retries."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

import structlog

from producers.metrics import Instruments
from producers.publisher.broker import Broker
from producers.publisher.commands import CameraControl
from producers.publisher.first_answer import FirstAnswer, silence
from producers.publisher.link import Connection, Link
from producers.publisher.presence import Presence
from producers.publisher.reports import RESERVED, Reports
from producers.publisher.settings import LinkSettings, WindowSettings
from producers.publisher.window import Window
from producers.spool import FrameKey, Spool
from schemas.clock import monotonic_ms, unix_ms
from schemas.errors import StateError, TooLargeError, WireError
from schemas.identity import CameraId, Identity
from schemas.keys.keys import CameraKey
from schemas.messages.frame import open_own_message
from schemas.pointillist_pb2 import Confirm, Meta, Refusal
from schemas.runtime import trace
from schemas.runtime.throttle import Throttle
from schemas.topics import Channel, mqtt_topic
from schemas.transport.mqtt.connection import LARGEST_PACKET, PACKET_TOO_LARGE, Subscription
from schemas.transport.mqtt.internals import PUBLISH_BYTES

_log = structlog.get_logger()

_NO_SUBSCRIBERS: Final = 16
_REFUSED: Final = 128
_LOG_EVERY_S: Final = 60.0
_REFUSED_CONDITION: Final = "refused"
_REFUSED_S: Final = 10.0
"""Minimum seconds without another refusal after which the camera is no longer refused."""
_REFUSED_FRAMES_AGAIN: Final = 2.5
"""The same minimum in frame periods; the longer time applies."""
_OVERSIZE_CONDITION: Final = "oversize"
_OVERSIZE_S: Final = 60.0
"""Seconds without another frame above the broker's packet limit after which the camera is no longer degraded."""
_STEP_MS: Final = 1000
"""Difference between wall clock and monotonic clock, in milliseconds, from which on the wall clock has been set."""


class Publisher:
    """Sends the spool's frames and frees the confirmed ones. All methods run on the loop's thread.

    `publish` appends a frame to the spool and sends it as soon as the window allows. Call `tick` a few times a second.
    Raises `StateError` when the spool cannot be written.
    """

    def __init__(
        self,
        key: CameraKey,
        spool: Spool,
        control: CameraControl,
        meta: Callable[[], Meta],
        broker: Broker,
        window: WindowSettings,
        settings: LinkSettings,
        instruments: Instruments,
        wrap_link: Callable[[Link], Connection] | None = None,
    ) -> None:
        self._key = key
        self._spool = spool
        self._control = control
        self._bounds = window
        self._settings = settings
        self._instruments = instruments
        self._window = Window(window, settings)
        self._resend: dict[FrameKey, None] = {}
        self._unacknowledged: dict[int, FrameKey] = {}
        self._receive_maximum = 65_535
        self._packet_bytes = LARGEST_PACKET
        self._no_subscribers = False
        self._fresh: tuple[FrameKey, bytes] | None = None
        # A random first time: all cameras of a fleet must not send at the same moment.
        self._next_revision = time.monotonic() + settings.ledger_every_s * random.random()
        self._greeting = False
        self._ahead_ms = unix_ms() - monotonic_ms()
        self._log_throttle: Throttle[CameraId] = Throttle(_LOG_EVERY_S)
        self._first_answer = FirstAnswer(settings.first_answer_s)
        self._freed = asyncio.Event()
        self.on_shed: Callable[[list[FrameKey]], None] = lambda _: None
        """Called with the frames that the spool has shed."""
        spool.on_shed = self._on_shed
        instruments.shed.inc(self._count_damage())  # damage found before `on_shed` was set
        camera_id = key.camera_id
        self._frame_topic = mqtt_topic(camera_id, Channel.FRAME)
        self._confirm_topic = mqtt_topic(camera_id, Channel.CONFIRM)
        self._settings_topic = mqtt_topic(camera_id, Channel.SETTINGS)
        self._probes_topic = mqtt_topic(camera_id, Channel.PROBES)
        self._key_topic = mqtt_topic(camera_id, Channel.KEY_REQUEST)
        self._refusal_topic = mqtt_topic(camera_id, Channel.REFUSAL)
        self.refused = ""
        """The reason of the last refusal of this boot's frames; empty before the first."""
        self._refused_at = 0.0
        self._oversize_at = -math.inf
        self.presence = Presence(key, spool.install_id, spool.current.boot_id, meta, self._announce)
        link = Link(
            self,
            client_id(camera_id, spool.install_id),
            broker,
            self.presence.will,
            [
                Subscription(self._confirm_topic, 0),
                Subscription(self._settings_topic, 1),
                Subscription(self._probes_topic, 1),
                Subscription(self._key_topic, 0),
                Subscription(self._refusal_topic, 0),
                Subscription(self.presence.status_topic, 1, no_local=True),
            ],
            settings,
            broker.tls[camera_id] if broker.tls is not None else None,
        )
        self.link: Connection = wrap_link(link) if wrap_link is not None else link
        self._reports = Reports(key, spool.ledgers, settings, self.link.publish, self._may_send)

    @property
    def has_room(self) -> bool:
        """Whether the spool holds less than a window: a source that can wait is read only then."""
        spool, bounds = self._spool, self._bounds
        return spool.frames < bounds.frames and spool.payload_bytes < bounds.bytes and spool.has_room

    async def wait_for_room(self) -> None:
        """Return when `has_room`."""
        while not self.has_room:
            self._freed.clear()
            await self._freed.wait()

    def publish(self, payload: bytes, position: int, captured_ms: int, raw_bytes: int) -> None:
        """Publish the signed message of the frame `spool.current.next`."""
        seq = self._spool.append(payload, position, captured_ms, raw_bytes)
        if trace.on():
            trace.stamp("spooled", Identity(self._key.camera_id, self._spool.current.boot_id, seq))
        self._fresh = ((self._spool.current.boot_id, seq), payload)
        self._first_answer.start(time.monotonic())
        self._instruments.published.inc()
        self._instruments.raw_bytes.inc(raw_bytes)
        self._instruments.sent_bytes.inc(len(payload))
        self._pump()

    def finish(self) -> None:
        """Close this boot's ledger and send it: no frames follow."""
        self._spool.finish()
        self._reports.send_ledgers(time.monotonic())

    def tick(self, now: float) -> None:
        """Resend due frames, and report this boot's progress. `now` is monotonic, in seconds."""
        self.link.tick(now)
        self._count_damage()
        self._watch_clock()
        if self._control.apply_due():
            self.presence.describe()
        self._clear_refusal(now)
        if now - self._oversize_at > _OVERSIZE_S:
            self.presence.clear_fault(_OVERSIZE_CONDITION)
        if self._first_answer.overdue(now):
            why = silence(self._key.camera_id, self.link.up, self.link.connections, self._no_subscribers)
            _log.warning("nothing_confirmed", camera=self._key.camera_id, reason=why)
        if now >= self._next_revision:
            self._next_revision = now + self._settings.ledger_every_s
            self._control.persist()
            for ledger in self._spool.ledgers.outdated():
                self._spool.ledgers.revise(ledger)
        if self.link.up:
            waiting = set(self._unacknowledged.values())
            self._resend.update(dict.fromkeys(self._window.due(now, waiting, self._no_subscribers)))
            self._reports.send_announcements()
            self._reports.send_ledgers(now)
            self._pump()

    async def close(self, timeout_s: float) -> None:
        """Publish the status `offline` and disconnect; the spool keeps unconfirmed frames."""
        self.presence.announce_offline()
        await self.link.close(timeout_s)

    # Callbacks of the link.

    def on_up(self, session_present: bool, receive_maximum: int, packet_bytes: int) -> None:
        """Handle a new connection. If the broker has no session, all frames of the window are sent again."""
        if self.link.connections > 1:
            self._instruments.reconnects.inc()
        self._receive_maximum = receive_maximum
        self._packet_bytes = packet_bytes
        self._reports.begin(session_present)
        if session_present:
            for key in self._unacknowledged.values():
                self._count_resent(key)  # paho sends these itself
        else:
            self._unacknowledged.clear()
            self._resend = dict.fromkeys(self._window.all())
        self._greeting = True

    def on_puback(self, mid: int, reason: int) -> None:
        """Handle a PUBACK: the broker has the frame, had no subscriber for it, or refuses it."""
        key = self._unacknowledged.pop(mid, None)
        if key is not None:
            self._no_subscribers = reason == _NO_SUBSCRIBERS
            if self._no_subscribers:
                self._window.undelivered(key)
        self._reports.acknowledged(mid)
        if reason == PACKET_TOO_LARGE and key is not None and (frame := self._spool.get(key)) is not None:
            self._shed_oversize(key, self._packet_of(frame.length))
        elif reason >= _REFUSED:
            self._log_problem("mqtt_publish_refused", f"reason code {reason}")

    def on_message(self, topic: str, payload: bytes, retained: bool) -> None:
        """Handle a confirmation, a command or a status under this camera's name."""
        try:
            if topic == self._confirm_topic:
                self._on_confirm(open_own_message(Confirm, self._key, payload))
            elif topic in (self._settings_topic, self._probes_topic):
                obey = self._control.command if topic == self._settings_topic else self._control.probe_request
                if payload and obey(payload):
                    self.presence.describe()
            elif topic == self._key_topic:
                self._control.request_key(payload)
            elif topic == self._refusal_topic:
                self._on_refusal(open_own_message(Refusal, self._key, payload))
            elif topic == self.presence.status_topic:
                self.presence.on_status(payload, retained)
        except WireError as error:
            self._log_problem("control_message_rejected", str(error))

    def on_read(self) -> None:
        """Send the messages for which the last read has made room."""
        if self._greeting and self.link.up:
            self._greeting = False
            self.presence.announce_online()
            self._reports.send_announcements()
            self._reports.send_ledgers(time.monotonic())
        elif self.link.up:
            self._reports.resume()
        self._pump()

    def _pump(self) -> None:
        """Send resends first and then new frames, oldest first, until the window or the socket is full."""
        now = 0.0
        most = max(1, self._receive_maximum - RESERVED)
        while self.link.up and len(self._unacknowledged) < most and self._may_send() and not self.link.blocked:
            key = next(iter(self._resend), None)
            if key is not None:
                del self._resend[key]
            else:
                key = self._spool.peek_unsent()
                if key is None:
                    return
            frame = self._spool.get(key)
            if frame is None:
                continue
            if (packet_bytes := self._packet_of(frame.length)) > self._packet_bytes:
                self._shed_oversize(key, packet_bytes)
                continue
            first = key not in self._window
            if first and not self._window.has_room(frame.length):
                return
            try:
                payload = self._fresh[1] if self._fresh and self._fresh[0] == key else self._spool.read(frame)
            except StateError as error:
                if not first:
                    self._resend[key] = None
                self._log_problem("spool_unreadable", str(error))
                return
            mid = self.link.publish(self._frame_topic, payload)
            if mid is None:
                if not first:
                    self._resend[key] = None
                return
            now = now or time.monotonic()
            self._unacknowledged[mid] = key
            self._window.sent(key, frame.length, now)
            if first:
                self._spool.take_unsent()
                if trace.on():
                    trace.stamp("published", Identity(self._key.camera_id, *key))
            else:
                self._count_resent(key)

    def _packet_of(self, frame_bytes: int) -> int:
        """Return the most bytes of a frame's MQTT packet."""
        return frame_bytes + len(self._frame_topic.encode()) + PUBLISH_BYTES

    def _shed_oversize(self, key: FrameKey, packet_bytes: int) -> None:
        """Shed a frame that the broker refuses for its size, as it would at each try."""
        self._spool.shed_unsendable(key)
        now = time.monotonic()
        if now - self._oversize_at > _OVERSIZE_S:
            limit = f"{self._packet_bytes} bytes" if packet_bytes > self._packet_bytes else "what the broker accepts"
            detail = (
                f"MQTT packet: expected at most {limit}, got a frame of {packet_bytes} bytes. Set a smaller size for "
                "the camera, or a higher crf under the profile video, or raise the broker's limit."
            )
            self.presence.report_fault(_OVERSIZE_CONDITION, detail)
            _log.error("frame_too_large", camera=self._key.camera_id, detail=detail)
        self._oversize_at = now

    def _count_resent(self, key: FrameKey) -> None:
        frame = self._spool.get(key)
        if frame is not None:
            self._spool.ledgers.count_resent(key[0], frame.length)
            self._instruments.resent.inc()
            self._instruments.resent_bytes.inc(frame.length)

    def _on_confirm(self, confirm: Confirm) -> None:
        freed = self._spool.confirm(confirm.boot_id, [(part.first, part.last) for part in confirm.ranges])
        self._window.confirmed(freed, time.monotonic())
        if trace.on():
            trace.stamp("confirmed", *(Identity(self._key.camera_id, *key) for key in freed))
        self._freed.set()
        self._first_answer.settle()
        self._instruments.confirmed.inc(len(freed))
        if confirm.ledger_revision:
            self._reports.confirmed(confirm.boot_id, confirm.ledger_revision)

    def _on_refusal(self, refusal: Refusal) -> None:
        """Report that frames of this boot are rejected. Ignore a refusal of another boot, or a replayed one. A frame of
        any boot that is too large for Kafka is shed.
        """
        ledger, key = self._spool.current, (refusal.boot_id, refusal.seq)
        if refusal.reason == TooLargeError.reason and self._spool.get(key) is not None:
            self._spool.shed_unsendable(key)
        if refusal.boot_id != ledger.boot_id or refusal.seq >= ledger.next:
            return
        self._refused_at, self.refused = time.monotonic(), refusal.detail
        self._first_answer.settle()
        if self.presence.report_fault(_REFUSED_CONDITION, refusal.detail):
            _log.error("frames_rejected", camera=self._key.camera_id, reason=refusal.reason, detail=refusal.detail)

    def _watch_clock(self) -> None:
        """Announce the camera again after its clock was set: the server may have ignored times of the past."""
        ahead_ms = unix_ms() - monotonic_ms()
        if abs(ahead_ms - self._ahead_ms) > _STEP_MS:
            self._ahead_ms = ahead_ms
            self._greeting = True

    def _clear_refusal(self, now: float) -> None:
        """End the refused state after some frames without another refusal."""
        rate = self._control.rate
        wait_s = max(_REFUSED_S, _REFUSED_FRAMES_AGAIN / rate if rate else 0.0)
        if self.refused and now - self._refused_at > wait_s:
            self.presence.clear_fault(_REFUSED_CONDITION)

    def _on_shed(self, keys: list[FrameKey]) -> None:
        self._window.shed(keys)
        self._freed.set()
        self._instruments.shed.inc(len(keys))
        self.on_shed(keys)

    def _count_damage(self) -> int:
        """Count the damage that the spool has found, and return the number of damaged frames."""
        found = self._spool.take_damage()
        self._instruments.damaged_frames.inc(found.frames)
        self._instruments.damaged_ledgers.inc(found.ledgers)
        return found.frames

    def _may_send(self) -> bool:
        """Return whether the broker's receive maximum allows a message. It disconnects a client that exceeds it."""
        return len(self._unacknowledged) + len(self._reports) < self._receive_maximum

    def _announce(self, topic: str, payload: bytes, retain: bool) -> None:
        self._reports.announce(topic, payload, retain)
        if self.link.up:
            self._reports.send_announcements()

    def _log_problem(self, event: str, reason: str) -> None:
        """Log at most once a minute: rejected messages may arrive at any rate."""
        if self._log_throttle.try_acquire(self._key.camera_id, time.monotonic()):
            _log.warning(event, camera=self._key.camera_id, reason=reason)


def client_id(camera_id: str, install_id: str) -> str:
    """Return the MQTT client id of a camera on one installation: 22 characters, which every broker accepts."""
    return "pl" + blake2b(f"{camera_id}\0{install_id}".encode(), digest_size=10).hexdigest()
