"""The choice of frames to show to people: their rebuilt pictures, and now and then the pictures as sent.

Decoded video needs no reconstruction for people. At dropped pixels it shows what the camera filled in before the codec.
"""

from __future__ import annotations

import time
from typing import Final

from processors.arrivals.job import FrameJob, PreviewKind
from processors.settings import ProcessorSettings
from schemas.limits import MAX_VIEWED_CAMERAS
from schemas.runtime.throttle import Throttle

LONGEST_VIEW_S: Final = 15.0
"""Maximum seconds of one view. Its reader repeats it."""


class PreviewTurns:
    """The preview schedule of each camera. A picture as sent comes with a due preview; a probe's adds one.

    While somebody looks at a camera's page, its previews come every `view_interval_s`.
    """

    def __init__(self, settings: ProcessorSettings) -> None:
        self._rebuilt: Throttle[str] = Throttle(settings.preview_interval_s)
        viewed_s = min(settings.view_interval_s, settings.preview_interval_s)
        # Frames of a camera at just this rate come a little early as often as late, and all of them should be shown.
        self._viewed: Throttle[str] = Throttle(viewed_s, early_s=viewed_s / 2)
        self._as_sent: Throttle[tuple[str, bool]] = Throttle(settings.as_sent_interval_s)
        self._views: dict[str, float] = {}

    def view(self, camera: str, for_s: float, now_s: float | None = None) -> None:
        """Show more of a camera's pictures for the next seconds. Ignored beyond `MAX_VIEWED_CAMERAS` cameras."""
        now_s = time.monotonic() if now_s is None else now_s
        self._views = {name: until_s for name, until_s in self._views.items() if until_s > now_s}
        if for_s > 0 and (camera in self._views or len(self._views) < MAX_VIEWED_CAMERAS):
            self._views[camera] = now_s + min(for_s, LONGEST_VIEW_S)

    def select(self, job: FrameJob, now_s: float) -> PreviewKind:
        """Return the pictures to show of a frame at this monotonic time, and count them as shown."""
        frame = job.frame
        turns = self._viewed if self._views.get(job.camera_id, 0.0) > now_s else self._rebuilt
        due = turns.try_acquire(job.camera_id, now_s)
        if due:
            self._rebuilt.note(job.camera_id, now_s)
        if (due or frame.whole) and self._as_sent.try_acquire((job.camera_id, frame.whole), now_s):
            return PreviewKind.BOTH
        return PreviewKind.REBUILT if due else PreviewKind.NOTHING
