"""Time of a device or a process by camera: what each one has used, and what its waiting frames will take.

Start-time fair queueing (Goyal, Vin and Cheng 1996): the camera with the least time goes first. A camera that returns
starts at the level of the active ones: nobody saves up time, and nobody pays for time alone.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Sequence
from typing import Final

_REMEMBERED: Final = 8
_FEW: Final = 64
_LEAST: Final = 2
"""Batches of a size before its time counts: the first one may have filled caches."""


class TimeShares:
    """Time by camera. Pure bookkeeping without a clock; the caller measures the seconds."""

    def __init__(self) -> None:
        self._used_s: dict[str, float] = {}
        self._floor_s = 0.0
        self._most = _FEW
        """Number of entries above which those at the floor are removed."""
        # By powers of two of pixels: a sender with varying sizes adds no more entries.
        self._per_pixel: defaultdict[int, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

    def used_s(self, camera_id: str) -> float:
        """Return a camera's time so far, on a scale that only compares with other cameras."""
        return max(self._floor_s, self._used_s.get(camera_id, 0.0))

    def least_used_s(self, cameras: Collection[str]) -> float:
        """Return the least time of any of `cameras`."""
        # Most have used as much as the floor, and have no entry.
        if len(cameras) > len(self._used_s):
            return self._floor_s
        return min(map(self.used_s, cameras))

    def ahead(self, cameras: Collection[str]) -> list[str]:
        """Return those of `cameras` that have used more than the least, in ascending order."""
        used = self._used_s
        found = (each for each in used if used[each] > self._floor_s and each in cameras)
        return sorted(found, key=self.used_s)

    def charge(self, cameras: Sequence[str], pixels: int, seconds: float) -> None:
        """Charge `seconds` for a batch with one frame of `pixels` (height x width) of each of `cameras`."""
        each_s = seconds / len(cameras)
        self._per_pixel[pixels.bit_length()].append(each_s / pixels)
        floor_s = self.least_used_s(set(cameras))
        for camera_id in cameras:
            self._used_s[camera_id] = self.used_s(camera_id) + each_s
        if floor_s > self._floor_s:
            self._floor_s = floor_s
            if len(self._used_s) > self._most:  # seldom: it takes a step for each camera
                self._used_s = {camera_id: used_s for camera_id, used_s in self._used_s.items() if used_s > floor_s}
                self._most = max(_FEW, 2 * len(self._used_s))

    def frame_s(self, pixels: int) -> float:
        """Return the time of a frame of this many pixels: the least of recent ones; 0 before it is known.

        The least, because a machine that was busy or paused is not the camera's fault.
        """
        known = self._per_pixel.get(pixels.bit_length(), ())
        return pixels * min(known) if len(known) >= _LEAST else 0.0
