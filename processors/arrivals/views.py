"""A reader of views: consoles name the cameras whose pages are open."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from schemas.errors import PointillistError
from schemas.identity import camera_id
from schemas.keys.keys import KeyRing
from schemas.messages.frame import open_message
from schemas.pointillist_pb2 import View
from schemas.transport.access import KafkaAddress
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.reader import Reader

_WAIT_S = 5.0

log = structlog.get_logger()


class ViewFeed:
    """The views from now on; a record without its camera's tag changes nothing."""

    def __init__(self, bootstrap: KafkaAddress, topic: str, keys: KeyRing, view: Callable[[str, float], None]) -> None:
        """`view` gets a camera and the seconds for which it is viewed."""
        self._bootstrap = bootstrap
        self._topic = topic
        self._keys = keys
        self._view = view

    async def run(self) -> None:
        """Read until cancelled. Pictures come at their usual rate while Kafka or the topic is missing."""
        backoff = Backoff()
        while True:
            try:
                async with Reader(self._bootstrap, self._topic, begin="latest") as reader:
                    backoff.reset()
                    while True:
                        for records in (await reader.fetch(wait_s=_WAIT_S)).values():
                            for record in records:
                                self.take(record.key or b"", record.value or b"")
            except Exception as error:  # views are a convenience: no error of theirs ends a processor
                log.warning("views_not_read", error=f"{type(error).__name__}: {error}"[:200])
            await backoff.wait()

    def take(self, key: bytes, value: bytes) -> None:
        """Apply one record."""
        try:
            camera = camera_id(key.decode())
            view = open_message(View, camera, value, self._keys)
        except (PointillistError, UnicodeDecodeError):
            return
        self._view(camera, view.until_ms / 1000 - time.time())
