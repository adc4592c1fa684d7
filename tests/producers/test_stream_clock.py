"""Capture times of an RTSP stream from the camera's sender reports."""

from __future__ import annotations

import struct
import time
from itertools import pairwise
from statistics import median
from types import SimpleNamespace
from typing import cast

import av
import pytest
from av.packet import Packet
from av.stream import Stream
from pydantic import SecretStr

from benchmarks.harness.rtsp import RtspServer, counted_number
from producers.sources.clock import StreamClock
from producers.sources.settings import SourceSettings
from producers.sources.url import UrlSource

FPS = 10


class StandInPacket:
    """A packet with the side data that FFmpeg adds after a sender report: int64 microseconds, int32 flags."""

    def __init__(self, pts: int | None, wallclock_us: int | None) -> None:
        self.pts = pts
        self._wallclock_us = wallclock_us

    def has_sidedata(self, kind: str) -> bool:
        return kind == "prft" and self._wallclock_us is not None

    def get_sidedata(self, kind: str) -> bytes:
        return struct.pack("=qi", self._wallclock_us, 24)


def packet(pts: int | None, wallclock_us: int | None = None) -> Packet[Stream]:
    return cast("Packet[Stream]", StandInPacket(pts, wallclock_us))


def frame(pts: int | None) -> av.VideoFrame:
    return cast(av.VideoFrame, SimpleNamespace(pts=pts))


def test_a_frame_has_the_time_of_its_own_packet_despite_the_decoders_delay() -> None:
    clock = StreamClock()
    for pts, wallclock_us in ((0, 1_000_000_000), (7200, 1_000_080_000), (3600, 1_000_040_000)):
        clock.note(packet(pts, wallclock_us))
    times = [clock.captured_ms(frame(pts), 1_000_100) for pts in (0, 3600, 7200)]
    assert times == [1_000_000, 1_000_040, 1_000_080]
    assert clock.skew_ms == -20


def test_the_time_is_unknown_before_the_first_report_and_without_a_timestamp() -> None:
    clock = StreamClock()
    clock.note(packet(0))
    clock.note(packet(None, 1_000_000_000))
    assert clock.captured_ms(frame(0), 1_000_000) is None
    assert clock.captured_ms(frame(None), 1_000_000) is None
    assert clock.skew_ms is None


@pytest.mark.parametrize(("skew_ms", "believed"), [(-30_000, True), (1_000, True), (-30_001, False), (1_001, False)])
def test_a_clock_too_far_from_ours_is_rejected_and_its_skew_reported(skew_ms: int, believed: bool) -> None:
    clock = StreamClock()
    now_ms = 1_700_000_000_000
    clock.note(packet(0, 1000 * (now_ms + skew_ms)))
    assert clock.captured_ms(frame(0), now_ms) == (now_ms + skew_ms if believed else None)
    assert (clock.skew_ms, clock.believed) == (skew_ms, believed)


@pytest.mark.parametrize(("bound_ms", "beyond_ms"), [(-30_000, -30_001), (1_000, 1_001)])
def test_a_clock_at_the_bound_of_its_skew_does_not_alternate_between_frames(bound_ms: int, beyond_ms: int) -> None:
    clock = StreamClock()
    around = [bound_ms, beyond_ms] * 10
    skews_ms = [beyond_ms, *around, *[-9] * 6, *around, -9, -9, -9, bound_ms, *[-9] * 6]
    found = []
    for second, skew_ms in enumerate(skews_ms):
        now_ms = 1_700_000_000_000 + 1000 * second
        clock.note(packet(second, 1000 * (now_ms + skew_ms)))
        found.append(clock.captured_ms(frame(second), now_ms) is not None)
    switch = [True] + 19 * [False]
    assert found == [False, *switch, *4 * [False], True, True, *switch, *8 * [False], True, True]


def test_the_streams_clock_counts_again_at_once_after_our_clock_was_set_back_to_it() -> None:
    clock, now_ms = StreamClock(), 1_700_000_000_000
    found = []
    for second, ahead_ms in enumerate([0, 3_600_000, 3_600_000, 0, 0]):
        clock.note(packet(second, 1000 * now_ms))
        found.append(clock.captured_ms(frame(second), now_ms + ahead_ms))
    assert found == [now_ms, None, None, now_ms, now_ms]


def test_frames_read_in_a_burst_keep_the_intervals_of_their_capture() -> None:
    with RtspServer("--counted", 64, 48, FPS) as server:
        source = UrlSource(SourceSettings(kind="url", address=SecretStr(server.address("counted"))))
        # Until the first read, frames and the first sender report wait in the connection.
        time.sleep(2.0)
        frames: list[tuple[int, int, float]] = []
        while len(frames) < FPS or (frames[-1][2] - frames[-1][1] / 1000 > 0.7 and len(frames) < 10 * FPS):
            captured = source.read()
            assert captured is not None
            if captured.captured_ms is not None:
                frames.append((counted_number(captured.picture), captured.captured_ms, time.time()))
        source.close()
    numbers, times, read_at = zip(*frames, strict=True)
    assert list(numbers) == list(range(numbers[0], numbers[0] + len(frames)))
    steps = [later - earlier for earlier, later in pairwise(times)]
    # A busy machine delays the server's own timer now and then.
    assert median(abs(step - 1000 / FPS) for step in steps) < 40
    # Waiting frames are read much faster than they were captured, also on a busy machine.
    assert read_at[5] - read_at[0] < 0.5 * (times[5] - times[0]) / 1000
    assert read_at[0] - times[0] / 1000 > 0.5  # judged by their arrival, all frames would be recent
    assert 0 <= read_at[-1] - times[-1] / 1000 <= 0.7  # a frame that has not waited is recent
