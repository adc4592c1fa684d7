"""Which frames are shown to people, and how often: rebuilt, and now and then as they were sent."""

from __future__ import annotations

from enum import IntEnum

from processors.arrivals.frames import TakenFrame
from processors.settings import ProcessorSettings
from schemas.runtime.throttle import Throttle


class Wanted(IntEnum):
    """What of a frame is shown."""

    NOTHING = 0
    REBUILT = 1
    BOTH = 2
    """Rebuilt, and as it was sent."""


class PreviewTurns:
    """Gives each camera its turn. Pictures as sent go beside previews that are due; a probe's bring one along."""

    def __init__(self, settings: ProcessorSettings) -> None:
        self._rebuilt: Throttle[str] = Throttle(settings.preview_interval_s)
        self._as_sent: Throttle[tuple[str, bool]] = Throttle(settings.as_sent_interval_s)

    def take(self, taken: TakenFrame, now_s: float) -> Wanted:
        """What is wanted of a frame now, by a monotonic clock; it counts as shown."""
        frame = taken.frame
        due = self._rebuilt.take(taken.camera_id, now_s)
        if (due or frame.whole) and self._as_sent.take((taken.camera_id, frame.whole), now_s):
            return Wanted.BOTH
        return Wanted.REBUILT if due else Wanted.NOTHING
