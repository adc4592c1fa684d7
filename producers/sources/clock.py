"""When a live stream's frames were captured, by the stream's own clock where it has one.

An RTSP camera says by RTCP sender reports (RFC 3550, 6.4.1) which moment of its wall clock belongs to which RTP
timestamp. FFmpeg gives each packet that comes after the first report this time as side data, `AVProducerReferenceTime`:
the microseconds since 1970 of the packet's own RTP timestamp, so it holds through a camera's drift. Before the first
report, a second or a few after the start, and in streams without RTCP (HTTP, devices), a frame has the time of its
arrival.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

import av
from av.packet import Packet
from av.stream import Stream

BELIEVED_MS: Final = (-30_000, 1_000)
"""What a stream's clock may say of a frame that has just arrived, relative to ours: what is outside says that one of
the two is wrong, and then the arrival counts."""
_REMEMBERED: Final = 64
"""Packets, more than a decoder holds back: H.264 reorders at most 16."""
_WALLCLOCK: Final = struct.Struct("=q")


class StreamClock:
    """Remembers of each packet when it was captured, until the decoder gives its frame."""

    def __init__(self) -> None:
        self._taken: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)
        self.skew_ms: int | None = None
        """What the stream's clock said of the last frame, minus our time at its arrival; None while it says nothing."""

    def note(self, packet: Packet[Stream]) -> None:
        """A packet on its way into the decoder."""
        taken_us = reference_us(packet)
        if taken_us is not None and packet.pts is not None:
            self._taken.append((packet.pts, taken_us))

    def captured_ms(self, frame: av.VideoFrame, now_ms: int) -> int | None:
        """Unix time in milliseconds at which a frame that came `now_ms` was captured; None when only that is known."""
        taken_us = next((taken for pts, taken in reversed(self._taken) if pts == frame.pts), None)
        if taken_us is None:
            return None
        captured_ms = taken_us // 1000
        self.skew_ms = captured_ms - now_ms
        return captured_ms if self.believed else None

    @property
    def believed(self) -> bool:
        """Whether the stream's clock is near ours."""
        return self.skew_ms is not None and BELIEVED_MS[0] <= self.skew_ms <= BELIEVED_MS[1]


def reference_us(packet: Packet[Stream]) -> int | None:
    """The wall clock of a packet in microseconds since 1970; None when its stream has not said it."""
    if not packet.has_sidedata("prft"):
        return None
    data = bytes(packet.get_sidedata("prft"))
    return int(_WALLCLOCK.unpack_from(data)[0]) if len(data) >= _WALLCLOCK.size else None
