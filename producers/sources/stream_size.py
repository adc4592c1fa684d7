"""The mean size of frames: of a source's own video stream, as its packets were read, or as they are published."""

from __future__ import annotations

from typing import Final

HALF: Final = 300
"""Number of frames after which the earlier ones lose half of their weight."""
LEAST: Final = 10
"""Number of frames before which there is no mean: the first is a key frame, which is much larger than the others."""


class StreamSize:
    """The mean bytes of a frame of one stream, in which recent frames weigh more."""

    def __init__(self) -> None:
        self._bytes = 0.0
        self._frames = 0.0

    def note(self, frame_bytes: int) -> None:
        """Add a frame. An empty packet marks the end of a stream and is left out."""
        if not frame_bytes:
            return
        self._bytes += frame_bytes
        self._frames += 1
        if self._frames >= 2 * HALF:
            self._bytes, self._frames = self._bytes / 2, self._frames / 2

    @property
    def frame_bytes(self) -> int:
        """The mean bytes of a frame; 0 before `LEAST` frames."""
        return round(self._bytes / self._frames) if self._frames >= LEAST else 0
