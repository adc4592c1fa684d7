"""The requests for certificates of a camera's next frames."""

from __future__ import annotations

import time
from typing import Final

from schemas.limits import MAX_CERTIFIED_FRAMES

MOST_CAMERAS: Final = 64
"""Cameras with a request at the same time."""
LONGEST_S: Final = 60.0
"""Seconds after which a request expires: the camera may belong to another processor."""


class CertificateRequests:
    """The frames of each camera that are still to be certified."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[int, float]] = {}

    def request(self, camera: str, frames: int, now_s: float | None = None) -> None:
        """Certify the camera's next `frames`, at most `MAX_CERTIFIED_FRAMES`. Ignored beyond `MOST_CAMERAS` cameras."""
        now_s = time.monotonic() if now_s is None else now_s
        self._left = {name: left for name, left in self._left.items() if left[1] > now_s}
        if frames > 0 and (camera in self._left or len(self._left) < MOST_CAMERAS):
            self._left[camera] = min(frames, MAX_CERTIFIED_FRAMES), now_s + LONGEST_S

    def claim(self, camera: str, now_s: float) -> bool:
        """Return whether a frame of the camera is to be certified, and count it."""
        found = self._left.get(camera)
        if found is None:
            return False
        count, until_s = found
        if count <= 1 or until_s <= now_s:
            del self._left[camera]
        else:
            self._left[camera] = count - 1, until_s
        return until_s > now_s
