"""The announcement of a camera's frame sizes: those of its video stream and the published ones, after a change."""

from __future__ import annotations

import math
from typing import Final

from producers.sources.stream_size import StreamSize

LEAST_S: Final = 10.0
"""Minimum seconds between two announcements."""
CHANGE: Final = 0.25
"""Share of an announced size by which the present one has to differ."""


class FrameSizes:
    """The mean bytes of a frame of the camera's video stream and of a published frame, as the camera announces them.

    Both stay 0 without a video stream: there is nothing to compare.
    """

    def __init__(self) -> None:
        self.own = 0
        self.sent = 0
        self._sent = StreamSize()
        self._announced_s = -math.inf

    def changed(self, own: int, sent_bytes: int, now_s: float) -> bool:
        """Add a published frame. If the sizes are due, store them as announced and return True.

        `own` is the present size of the video stream's frames. `now_s` is monotonic.
        """
        self._sent.note(sent_bytes)
        sent = self._sent.frame_bytes
        differs = abs(own - self.own) > CHANGE * self.own or abs(sent - self.sent) > CHANGE * self.sent
        if not (own and sent and differs) or now_s - self._announced_s < LEAST_S:
            return False
        self.own, self.sent, self._announced_s = own, sent, now_s
        return True
