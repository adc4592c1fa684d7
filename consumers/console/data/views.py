"""The cameras whose pages are open: processors send more of their pictures, and certificates on request."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Final

import structlog

from schemas.clock import unix_ms
from schemas.errors import error_text
from schemas.identity import camera_id
from schemas.keys.keys import KeyRing
from schemas.limits import MAX_CERTIFIED_FRAMES, MAX_VIEWED_CAMERAS
from schemas.messages.frame import sign_message
from schemas.pointillist_pb2 import View
from schemas.transport.access import KafkaAddress
from schemas.transport.kafka.sender import PlainRecord, Sender

_EVERY_S: Final = 2.0
_VIEW_S: Final = 6.0
"""Lifetime of one message in seconds."""
_OPEN_S: Final = 12.0
"""Seconds after which a page that was not served any more counts as closed: longer than a stream's heartbeat."""

log = structlog.get_logger()


class Views:
    """Sends a `View` of each open camera page every two seconds. For one event loop."""

    def __init__(self, kafka: KafkaAddress, topic: str, keys: KeyRing) -> None:
        """The sender connects at the first open page."""
        self._sender = Sender(kafka, name="console-views", deadline_s=_EVERY_S)
        self._topic = topic
        self._keys = keys
        self._open_at: OrderedDict[str, float] = OrderedDict()
        self._certify: dict[str, int] = {}
        self._opened = asyncio.Event()

    def note(self, camera: str) -> None:
        """Note that a page of the camera is open."""
        self._open_at[camera] = time.monotonic()
        self._open_at.move_to_end(camera)
        while len(self._open_at) > MAX_VIEWED_CAMERAS:
            self._open_at.popitem(last=False)
        self._opened.set()

    def certify(self, camera: str, frames: int) -> None:
        """Request certificates for the camera's next `frames`, at most `MAX_CERTIFIED_FRAMES`."""
        self._certify[camera] = min(frames, MAX_CERTIFIED_FRAMES)
        self.note(camera)

    def due(self, now_s: float) -> list[PlainRecord]:
        """Return a record for each open page and each request, and forget requests and closed pages."""
        self._open_at = OrderedDict((name, at_s) for name, at_s in self._open_at.items() if now_s - at_s <= _OPEN_S)
        until_ms = unix_ms() + int(1000 * _VIEW_S)
        certify, self._certify = self._certify, {}
        views = [(name, View(until_ms=until_ms, certify=certify.get(name, 0))) for name in {**self._open_at, **certify}]
        return [
            PlainRecord(name.encode(), sign_message(self._keys.current(camera_id(name)), view), [])
            for name, view in views
        ]

    async def run(self) -> None:
        """Send until cancelled. A Kafka that is away costs nothing but the higher rate."""
        failed = False
        try:
            while True:
                await self._opened.wait()
                requested = self._certify
                try:
                    records = self.due(time.monotonic())
                    if not records:
                        self._opened.clear()
                        continue
                    async with asyncio.timeout(_EVERY_S):
                        await self._sender.send(self._topic, records)
                    failed = False
                except Exception as error:  # a convenience: no error of it ends the console
                    self._certify = requested | self._certify
                    if not failed:
                        log.warning("views_not_sent", error=error_text(error))
                    failed = True
                await asyncio.sleep(_EVERY_S)
        finally:
            await self._sender.close(1.0)
