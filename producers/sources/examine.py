"""Examination of a stream by reading it for some seconds: codec, size, rate, delay, clock, and a picture."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import av
from av.container import InputContainer

from producers.sources.clock import StreamClock
from producers.sources.decoder import decode_video, to_rgb
from producers.sources.framing import Framing
from producers.sources.orientation import orient
from producers.sources.resolving import resolve_settings
from producers.sources.settings import SourceSettings
from producers.sources.url import fetch_snapshots, is_snapshot, open_container, public_address
from schemas.clock import unix_ms
from schemas.errors import SourceError, SourceHungError
from schemas.pixels.packing import Picture
from schemas.runtime.daemon_thread import run_in_daemon_thread


@dataclass
class StreamReport:
    """The findings; seconds are of this machine's monotonic clock."""

    address: str
    """The address without anything that may be a password."""
    codec: str
    profile: str
    size: tuple[int, int]
    """Width and height of the stream's pictures."""
    announced_fps: float | None
    live: bool
    snapshot: bool
    """Whether the address gives a still picture, which is fetched again for each frame."""
    hardware: bool
    """Whether hardware decodes the stream."""
    others: list[str]
    """Other streams of the source, such as `audio aac`."""
    opened_s: float
    """Seconds from the call to the stream's description."""
    first_s: float = 0.0
    """Seconds from the call to the first picture."""
    frames: int = 0
    fps: float | None = None
    """Live: measured over the frames that came at their own time, after those that had waited. A recording: frames of
    a second of the stream."""
    bits_per_s: float | None = None
    """Live: bytes over the time in which they came. A recording, which is read faster than that: over the duration of
    its packets."""
    key_frames: int = 0
    delay_ms: float | None = None
    """Median milliseconds from the capture, by the stream's own clock, to the decoded picture."""
    skew_ms: int | None = None
    """The stream's clock minus this machine's at the last frame; None without a stream clock."""
    clock_after_s: float | None = None
    """Seconds from the first picture to the first with a time of the stream's own clock."""
    believed: bool = False
    """Whether that clock is close to this machine's, and is used."""
    problem: str = ""
    """The reason why the reading ended early; empty if it did not."""
    sent_size: tuple[int, int] | None = None
    picture: Picture | None = field(default=None, repr=False)
    """The last picture, (H, W, C), as it would be sent before any pixel is dropped."""

    def summary(self) -> dict[str, Any]:
        """Return all findings except the picture."""
        return {key: value for key, value in vars(self).items() if key != "picture"}


def examine(settings: SourceSettings, seconds: float) -> StreamReport:
    """Read a URL for this many seconds after its first picture; `SourceError` if it cannot be opened or gives none. A
    later error is in `problem`, except for a read that never returns: it is a `SourceHungError`.
    """
    return asyncio.run(_in_time(settings, seconds))


async def _in_time(settings: SourceSettings, seconds: float) -> StreamReport:
    assert settings.address is not None  # by the settings' own check
    name = public_address(settings.address.get_secret_value())
    within_s = settings.opening_s + 2 * settings.hang_s + seconds  # to open, until the first picture, after the last
    found = run_in_daemon_thread(partial(_examined, settings, name, seconds), "examine")
    try:
        return await asyncio.wait_for(found, within_s)
    except TimeoutError:
        raise SourceHungError.of(name, f"did not return within {within_s:g} s") from None


def _examined(settings: SourceSettings, name: str, seconds: float) -> StreamReport:
    begun = time.monotonic()
    settings = resolve_settings(settings)
    container = open_container(settings, name)
    try:
        found = _described(container, settings, name, time.monotonic() - begun)
        _read(container, settings, found, begun, seconds)
    finally:
        container.close()
    if found.picture is None:
        raise SourceError.of(name, found.problem or "it gave no picture")
    return found


def _described(container: InputContainer, settings: SourceSettings, name: str, opened_s: float) -> StreamReport:
    stream = container.streams.video[0]
    context = stream.codec_context
    snapshot = is_snapshot(container, settings)
    return StreamReport(
        address=name,
        codec=context.name,
        profile=str(context.profile or ""),
        size=(context.width, context.height),
        announced_fps=float(stream.average_rate) if stream.average_rate and not snapshot else None,
        live=snapshot or (not container.duration and not _is_file(settings)),
        snapshot=snapshot,
        hardware=bool(context.is_hwaccel),
        others=[f"{other.type} {_codec(other)}".strip() for other in container.streams if other.index != stream.index],
        opened_s=opened_s,
    )


def _is_file(settings: SourceSettings) -> bool:
    """Return whether the address is a file of this machine: files of bare H.264 or MJPEG state no duration."""
    assert settings.address is not None  # by the settings' own check
    address = settings.address.get_secret_value()
    return address.startswith("file:") and Path(address.removeprefix("file:")).is_file()


def _codec(stream: av.stream.Stream) -> str:
    context = getattr(stream, "codec_context", None)
    return str(context.name) if context is not None else ""


class _Meter(StreamClock):
    """A stream clock that also counts its packets."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.packets = 0
        self.key_frames = 0
        self._span_s: tuple[float, float] | None = None

    def note(self, packet: av.packet.Packet[av.stream.Stream]) -> None:
        """Count a packet before it is decoded."""
        super().note(packet)
        self.bytes += packet.size
        self.packets += packet.size > 0
        self.key_frames += packet.is_keyframe
        # In decoding order: at the end of a read, presentation order has gaps.
        at = packet.pts if packet.dts is None else packet.dts
        if at is not None and packet.time_base is not None:
            begin = float(at * packet.time_base)
            end = begin + float((packet.duration or 0) * packet.time_base)
            first, last = self._span_s or (begin, end)
            self._span_s = min(first, begin), max(last, end)

    @property
    def stream_s(self) -> float:
        """The duration of the packets in the stream's own time; 0 when they have none."""
        return self._span_s[1] - self._span_s[0] if self._span_s is not None else 0.0


def _read(
    container: InputContainer, settings: SourceSettings, found: StreamReport, begun: float, seconds: float
) -> None:
    clock, frame_of = _Meter(), Framing.of(settings)
    delays: list[int] = []
    came: list[float] = []
    bytes_before = 0
    try:
        if found.snapshot:
            frames = fetch_snapshots(settings, found.address, clock)
        else:
            frames = decode_video(container, found.address, settings.hang_s, clock)
        if not found.live:
            frame_of, frames = orient(frames, frame_of, found.address)
        for frame in frames:
            now = time.monotonic()
            if not found.frames:
                found.first_s = now - begun
                bytes_before = clock.bytes
            found.frames += 1
            came.append(now)
            now_ms = unix_ms()
            if clock.captured_ms(frame, now_ms) is not None or clock.skew_ms is not None:
                delays.append(-(clock.skew_ms or 0))
                if found.clock_after_s is None:
                    found.clock_after_s = now - came[0]
            found.size = frame.width, frame.height
            if found.picture is None or now - came[0] >= seconds:
                found.picture = frame_of(to_rgb(frame))
            if now - came[0] >= seconds:
                break
    except SourceError as error:
        found.problem = error.reason or str(error)
    if found.picture is not None:
        found.sent_size = found.picture.shape[1], found.picture.shape[0]
    passed = came[-1] - came[0] if came else 0.0
    if not found.live:
        if clock.stream_s > 0:
            found.bits_per_s = 8 * clock.bytes / clock.stream_s
            found.fps = clock.packets / clock.stream_s
    elif passed > 0:
        found.bits_per_s = 8 * (clock.bytes - bytes_before) / passed
        found.fps = _rate(came)
    found.key_frames = clock.key_frames
    found.skew_ms, found.believed = clock.skew_ms, clock.believed
    # Early frames had waited in the connection before the read: the later half gives the stream's delay.
    found.delay_ms = float(median(delays[len(delays) // 2 :])) if delays else None


def _rate(came: list[float]) -> float | None:
    """Return frames a second over the later half of the time: those of the first half had waited in the connection."""
    middle = (came[0] + came[-1]) / 2
    late = [moment for moment in came if moment >= middle]
    return (len(late) - 1) / (late[-1] - late[0]) if len(late) > 1 and late[-1] > late[0] else None
