"""The capture times of a live stream's frames, by the stream's own clock where it has one.

RTCP sender reports (RFC 3550, 6.4.1) of an RTSP camera map its RTP timestamps to its wall clock. FFmpeg attaches this
time to each packet after the first report, as the side data `AVProducerReferenceTime`: microseconds since 1970 of the
packet's own RTP timestamp. It therefore follows the camera's drift. Before the first report, some seconds after the
start, and in streams without RTCP (HTTP, devices), a frame has the time of its arrival.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

import av
from av.packet import Packet
from av.stream import Stream

BELIEVED_MS: Final = (-30_000, 1_000)
"""Range of a plausible stream time of a frame that has just arrived, relative to our clock. Outside of it one of the
two is wrong, and the arrival counts."""
_PLAUSIBLE_MS: Final = (-25_000, 500)
"""Narrower range in which a clock that was outside counts again: at a bound, it would switch with each frame."""
_PLAUSIBLE_FOR_MS: Final = 5_000
"""Time for which it must then have been plausible."""
_REMEMBERED: Final = 64
"""Number of remembered packets, more than a decoder delays: H.264 reorders at most 16."""
_WALLCLOCK: Final = struct.Struct("=q")


class StreamClock:
    """The capture times of packets until the decoder returns their frames."""

    def __init__(self) -> None:
        self._taken: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)
        self.skew_ms: int | None = None
        """Stream time of the last frame minus our time at its arrival; None while the stream has no clock."""
        self.believed = False
        """Whether the stream's clock is near ours."""
        self._doubted_ms: int | None = None
        """Arrival of the last implausible frame of a clock that has counted; None if there was none since."""

    def note(self, packet: Packet[Stream]) -> None:
        """Record the time of a packet before it is decoded."""
        taken_us = reference_us(packet)
        if taken_us is not None and packet.pts is not None:
            self._taken.append((packet.pts, taken_us))

    def captured_ms(self, frame: av.VideoFrame, now_ms: int) -> int | None:
        """Return the capture time of a frame that arrived at `now_ms`, Unix time in milliseconds; None if only the
        arrival is known."""
        taken_us = next((taken for pts, taken in reversed(self._taken) if pts == frame.pts), None)
        if taken_us is None:
            return None
        captured_ms = taken_us // 1000
        self.skew_ms = captured_ms - now_ms
        self.believed = self._is_near(self.skew_ms, now_ms)
        return captured_ms if self.believed else None

    def _is_near(self, skew_ms: int, now_ms: int) -> bool:
        if not BELIEVED_MS[0] <= skew_ms <= BELIEVED_MS[1]:
            if self.believed or self._doubted_ms is not None:
                self._doubted_ms = now_ms
            return False
        if self._doubted_ms is None:
            return True
        if not _PLAUSIBLE_MS[0] <= skew_ms <= _PLAUSIBLE_MS[1]:
            self._doubted_ms = now_ms
        if 0 <= now_ms - self._doubted_ms < _PLAUSIBLE_FOR_MS:  # less than 0 after our clock was set back
            return False
        self._doubted_ms = None
        return True


def reference_us(packet: Packet[Stream]) -> int | None:
    """Return the wall clock of a packet in microseconds since 1970; None when the stream has not given it."""
    if not packet.has_sidedata("prft"):
        return None
    data = bytes(packet.get_sidedata("prft"))
    return int(_WALLCLOCK.unpack_from(data)[0]) if len(data) >= _WALLCLOCK.size else None
