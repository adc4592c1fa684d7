"""The limit of the bytes a second over all groups of one camera: a token bucket that holds one second's bytes.

Any T seconds have at most the bytes of T + 1 seconds, and of one more if the frame rate is not set and changes, unless
the codec's lowest quality has more.

libx264 keeps the limit inside a group, by a buffer of the same size. Each group has a new encoder, so the bucket counts
what earlier groups have sent: it decides how full the encoder's buffer is at first, and how much the group saves for
the next key frame. Amounts are in seconds: bytes divided by the limit.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_SAVED: Final = 0.25
"""Largest share of a group's bytes that is saved for the next key frame."""
_LEAST: Final = 0.25
"""Smallest share of the limit for a group that repays what earlier ones sent beyond the limit."""
_DEBT_S: Final = 5.0
"""Maximum debt. It grows further only if the codec's lowest quality is above the limit."""
_AHEAD_S: Final = 1.0
"""Maximum seconds by which frames may come faster than the encoder was set up for. Beyond it, a new group begins."""


class Allowance(NamedTuple):
    """The buffer of a group's encoder."""

    bytes_per_second: float
    """Bytes with which the buffer fills."""
    buffer_bytes: int
    full_bytes: float
    """Bytes that the buffer holds at first."""


class ByteLimit:
    """The token bucket. Call `refill` before each frame, and `spend` after it."""

    def __init__(self, bytes_per_second: int) -> None:
        self._bytes_per_second = bytes_per_second
        self._left_s = 1.0
        self._captured_ms: int | None = None
        self._rate = 0.0
        self._ahead_s = 0.0
        self._frames = 0
        self._lasted_s = 0.0

    def begin(self, rate: float, most_frames: int, most_s: float) -> Allowance:
        """Begin a group of at most this many frames and seconds; `rate` is in frames a second."""
        lasts_s = min(most_frames / rate, most_s)
        saved_s = min(1.0, _SAVED * lasts_s)
        share = 1 - (saved_s - min(self._left_s, 0.0)) / lasts_s
        self._rate, self._ahead_s, self._frames, self._lasted_s = rate, 0.0, 0, 0.0
        full_s = min(max(self._left_s, 1 / rate), 1.0)
        most = self._bytes_per_second
        return Allowance(most * max(share, _LEAST), most, most * full_s)

    def refill(self, captured_ms: int) -> None:
        """Add the tokens of the time since the last frame."""
        before_ms, self._captured_ms = self._captured_ms, captured_ms
        passed_s = 0.0 if before_ms is None else max(captured_ms - before_ms, 0) / 1000
        self._left_s = min(self._left_s + passed_s, 1.0)
        self._ahead_s = max(self._ahead_s - passed_s, 0.0)
        # A pause, as of a motion gate, is no measure of the rate of the frames after it.
        self._lasted_s += min(passed_s, 1.0)

    def spend(self, sent_bytes: int) -> None:
        """Count a frame of the group."""
        self._left_s = max(self._left_s - sent_bytes / self._bytes_per_second, -_DEBT_S)
        self._ahead_s += 1 / self._rate
        self._frames += 1

    @property
    def measured_rate(self) -> float:
        """Frames a second of the group so far, at least 1; 0 before its second frame."""
        return self._frames / self._lasted_s if self._lasted_s else 0.0

    @property
    def is_ahead(self) -> bool:
        """Whether the frames of the group come faster than the encoder was set up for."""
        return self._ahead_s > _AHEAD_S + 1 / self._rate
