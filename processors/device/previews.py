"""The choice of frames to show to people: their rebuilt pictures, and now and then the pictures as sent."""

from __future__ import annotations

from processors.arrivals.job import FrameJob, Wanted
from processors.settings import ProcessorSettings
from schemas.runtime.throttle import Throttle


class PreviewTurns:
    """The preview schedule of each camera. A picture as sent comes with a due preview; a probe's adds one."""

    def __init__(self, settings: ProcessorSettings) -> None:
        self._rebuilt: Throttle[str] = Throttle(settings.preview_interval_s)
        self._as_sent: Throttle[tuple[str, bool]] = Throttle(settings.as_sent_interval_s)

    def take(self, job: FrameJob, now_s: float) -> Wanted:
        """Return the pictures to show of a frame at this monotonic time, and count them as shown."""
        frame = job.frame
        due = self._rebuilt.take(job.camera_id, now_s)
        if (due or frame.whole) and self._as_sent.take((job.camera_id, frame.whole), now_s):
            return Wanted.BOTH
        return Wanted.REBUILT if due else Wanted.NOTHING
