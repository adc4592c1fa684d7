"""A reader of views: consoles name the cameras whose pages are open, and request certificates."""

from __future__ import annotations

import time
from collections.abc import Callable

from schemas.errors import PointillistError
from schemas.identity import camera_id
from schemas.keys.keys import KeyRing
from schemas.messages.frame import open_message
from schemas.pointillist_pb2 import View
from schemas.transport.access import KafkaAddress
from schemas.transport.kafka.follow import follow


class ViewFeed:
    """The views from now on; a record without its camera's tag changes nothing."""

    def __init__(
        self,
        bootstrap: KafkaAddress,
        topic: str,
        keys: KeyRing,
        view: Callable[[str, float], None],
        certify: Callable[[str, int], None],
    ) -> None:
        """`view` gets a camera and the seconds for which it is viewed.

        `certify` gets a camera and the number of frames whose labels are to be certified.
        """
        self._bootstrap = bootstrap
        self._topic = topic
        self._keys = keys
        self._view = view
        self._certify = certify

    async def run(self) -> None:
        """Read until cancelled. Pictures come at their usual rate while Kafka or the topic is missing."""
        await follow(self._bootstrap, self._topic, self.apply_record, begin="latest")

    def apply_record(self, key: bytes, value: bytes | None) -> None:
        """Apply one record."""
        try:
            camera = camera_id(key.decode())
            view = open_message(View, camera, value or b"", self._keys)
        except (PointillistError, UnicodeDecodeError):
            return
        for_s = view.until_ms / 1000 - time.time()
        self._view(camera, for_s)
        if view.certify and for_s > 0:
            self._certify(camera, view.certify)
