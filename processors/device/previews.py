"""The choice of frames to show to people: their rebuilt pictures, and now and then the pictures as sent.

Decoded video needs no reconstruction for people. At dropped pixels it shows what the camera filled in before the codec.
"""

from __future__ import annotations

import time
from typing import Final

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from processors.arrivals.job import FrameJob, Wanted
from processors.settings import ProcessorSettings
from schemas.pixels.packing import Picture
from schemas.pixels.planes import Colour, Planes
from schemas.runtime.throttle import Throttle

_BT709: Final = (Colour.BT709_LIMITED, Colour.BT709_FULL)
_FULL: Final = (Colour.BT601_FULL, Colour.BT709_FULL)
MOST_VIEWED: Final = 16
"""Cameras with pictures at the higher rate at the same time."""
LONGEST_VIEW_S: Final = 15.0
"""Maximum seconds of one view. Its reader repeats it."""


class PreviewTurns:
    """The preview schedule of each camera. A picture as sent comes with a due preview; a probe's adds one.

    While somebody looks at a camera's page, its previews come every `view_interval_s`.
    """

    def __init__(self, settings: ProcessorSettings) -> None:
        self._rebuilt: Throttle[str] = Throttle(settings.preview_interval_s)
        self._viewed: Throttle[str] = Throttle(min(settings.view_interval_s, settings.preview_interval_s))
        self._as_sent: Throttle[tuple[str, bool]] = Throttle(settings.as_sent_interval_s)
        self._views: dict[str, float] = {}

    def view(self, camera: str, for_s: float, now_s: float | None = None) -> None:
        """Show more of a camera's pictures for the next seconds. Ignored beyond `MOST_VIEWED` cameras."""
        now_s = time.monotonic() if now_s is None else now_s
        self._views = {name: until_s for name, until_s in self._views.items() if until_s > now_s}
        if for_s > 0 and (camera in self._views or len(self._views) < MOST_VIEWED):
            self._views[camera] = now_s + min(for_s, LONGEST_VIEW_S)

    def take(self, job: FrameJob, now_s: float) -> Wanted:
        """Return the pictures to show of a frame at this monotonic time, and count them as shown."""
        frame = job.frame
        turns = self._viewed if self._views.get(job.camera_id, 0.0) > now_s else self._rebuilt
        due = turns.take(job.camera_id, now_s)
        if due:
            self._rebuilt.note(job.camera_id, now_s)
        if (due or frame.whole) and self._as_sent.take((job.camera_id, frame.whole), now_s):
            return Wanted.BOTH
        return Wanted.REBUILT if due else Wanted.NOTHING


def shown_planes(planes: Planes, height: int, width: int) -> Picture:
    """Return a decoded picture as (height, width, C) uint8 for people: RGB, or grey.

    The sums are integers: the result is within a few levels of `Pipeline.show`, in a third of its time.
    """
    lines, columns, channels = planes.shape
    frame = av.VideoFrame(columns, lines, "gray" if channels == 1 else "yuv420p")
    for plane, samples in zip(frame.planes, (planes.luma, planes.blue, planes.red), strict=False):
        assert samples is not None
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
        rows[: len(samples), : samples.shape[1]] = samples
    shown = frame.reformat(
        width,
        height,
        "gray" if channels == 1 else "rgb24",
        src_colorspace=Colorspace.ITU709 if planes.colour in _BT709 else Colorspace.ITU601,
        src_color_range=ColorRange.JPEG if planes.colour in _FULL else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=Interpolation.AREA,
    )
    return shown.to_ndarray().reshape(height, width, channels).astype(np.uint8, copy=False)
