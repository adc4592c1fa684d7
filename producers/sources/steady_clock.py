"""The choice between the own clock of a live stream and the arrival of its frames, without switching back and forth."""

from __future__ import annotations

from typing import Final

_PLAUSIBLE_MS: Final = (-25_000, 500)
"""Range of the stream's clock relative to ours in which it is used again: narrower than `BELIEVED_MS`, because a clock
at a bound would switch with each frame."""
_PLAUSIBLE_FOR_MS: Final = 5_000


class SteadyClock:
    """The capture times of the frames of one connection."""

    def __init__(self) -> None:
        self._is_used = False
        self._doubted_ms: int | None = None
        """Arrival of the last frame without a plausible time, after one with it; None if the stream's clock counts."""

    def captured_ms(self, stream_ms: int | None, now_ms: int) -> int:
        """Return the capture time of a frame that arrived at `now_ms`, in Unix milliseconds.

        `stream_ms` is the time by the stream's clock, None if that is unknown or not believed. After it was lost, it
        counts again when it has been plausible for 5 s.
        """
        if stream_ms is None:
            if self._is_used:
                self._doubted_ms = now_ms
            return now_ms
        if self._doubted_ms is not None:
            if not _PLAUSIBLE_MS[0] <= stream_ms - now_ms <= _PLAUSIBLE_MS[1]:
                self._doubted_ms = now_ms
            if now_ms - self._doubted_ms < _PLAUSIBLE_FOR_MS:
                return now_ms
            self._doubted_ms = None
        self._is_used = True
        return stream_ms
