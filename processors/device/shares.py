"""Device time by camera: who has had how much of it, and what the frames that wait will take.

Start-time fair queueing (Goyal, Vin and Cheng 1996): the camera that has had least goes first, and one that was away
starts where those that are served stand now, so that nobody saves time up and nobody pays for having been alone.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Sequence
from typing import Final

_REMEMBERED: Final = 8
_LEAST: Final = 2
"""Batches of a size before its time is known: the first one may have had caches to fill."""


class DeviceShares:
    """Pure bookkeeping: no clock. Seconds are those of the device thread."""

    def __init__(self) -> None:
        self._had_s: dict[str, float] = {}
        self._floor_s = 0.0
        # By powers of two of pixels: a sender who varies his sizes makes no more of them.
        self._per_pixel: defaultdict[int, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

    def had_s(self, camera_id: str) -> float:
        """What a camera has had so far, on a scale that means something only beside the others'."""
        return max(self._floor_s, self._had_s.get(camera_id, 0.0))

    def least_s(self, cameras: Collection[str]) -> float:
        """What that of `cameras` has had that has had least."""
        # Most have had as much as the floor, and have no entry.
        if len(cameras) > len(self._had_s):
            return self._floor_s
        return min(map(self.had_s, cameras))

    def ahead(self, cameras: Collection[str]) -> list[str]:
        """Those of `cameras` that have had more than the least, in ascending order of it."""
        return sorted((camera_id for camera_id in self._had_s if camera_id in cameras), key=self.had_s)

    def charge(self, cameras: Sequence[str], pixels: int, seconds: float) -> None:
        """A batch with a frame of `pixels` (height x width) of each of `cameras` had the device for `seconds`."""
        each_s = seconds / len(cameras)
        self._per_pixel[pixels.bit_length()].append(each_s / pixels)
        floor_s = self.least_s(set(cameras))
        for camera_id in cameras:
            self._had_s[camera_id] = self.had_s(camera_id) + each_s
        if floor_s > self._floor_s:
            self._floor_s = floor_s
            self._had_s = {camera_id: had_s for camera_id, had_s in self._had_s.items() if had_s > floor_s}

    def frame_s(self, pixels: int) -> float:
        """What a frame of so many pixels takes: the least of what such frames lately took; 0 before that is known.

        The least, because a machine that was busy or stood still is not the camera's doing.
        """
        known = self._per_pixel.get(pixels.bit_length(), ())
        return pixels * min(known) if len(known) >= _LEAST else 0.0
