"""The limit of the pictures that are encoded as evidence: a PNG of 1080p takes about half a second of a core."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from schemas.limits import MAX_CAMERAS, USUAL_FRAME_PIXELS

PIXELS_PER_S: Final = USUAL_FRAME_PIXELS
"""Maximum pixels a second of one camera: one frame of 1080p, or forty of 224×224."""
AHEAD_S: Final = 1.0
"""Seconds of its rate that a camera may be ahead, for a burst."""
MAX_WAITING_PIXELS: Final = 2 * USUAL_FRAME_PIXELS
"""Pixels of all cameras that wait for their encoding, above which no other frame joins them."""
SMALL_PIXELS: Final = 256**2
MAX_WAITING_BEFORE_SMALL: Final = 4 * MAX_WAITING_PIXELS
"""The same for a frame of at most `SMALL_PIXELS`: cameras with large frames must not cost others their evidence."""


class EvidenceLimit:
    """The rate of each camera, by the generic cell rate algorithm, and the pixels that wait. Its memory is bounded.

    A frame counts as in flight until its verdict is sent. Without a limit, one camera's flagged frames would fill the
    processor's queue, and the frames of no camera would be fetched.
    """

    def __init__(self) -> None:
        self._waiting_pixels = 0
        self._paid_s: OrderedDict[str, float] = OrderedDict()
        """The monotonic time up to which each camera has used its rate."""

    def try_acquire(self, camera: str, pixels: int, now_s: float) -> bool:
        """Return whether a picture of the camera may be encoded at `now_s`, and if it may, count it as waiting."""
        paid_s = max(now_s, self._paid_s.get(camera, now_s))
        most = MAX_WAITING_BEFORE_SMALL if pixels <= SMALL_PIXELS else MAX_WAITING_PIXELS
        if paid_s - now_s > AHEAD_S or self._waiting_pixels > most:
            return False
        self._waiting_pixels += pixels
        self._paid_s[camera] = paid_s + pixels / PIXELS_PER_S
        self._paid_s.move_to_end(camera)
        if len(self._paid_s) > MAX_CAMERAS:
            self._paid_s.popitem(last=False)
        return True

    def release(self, pixels: int) -> None:
        """Count pixels as encoded."""
        self._waiting_pixels -= pixels
