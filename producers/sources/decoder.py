"""Decode the video stream of an open container, tolerating damage as FFmpeg's own tools do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from numpy.typing import NDArray

from producers.sources.clock import StreamClock
from producers.sources.deinterlacing import deinterlace
from producers.sources.framing import Framing
from producers.sources.stream_size import StreamSize
from schemas.errors import SourceError, SourceHungError
from schemas.limits import MAX_SIDE
from schemas.pixels.planes import Colour, Planes

_GREY: Final = "gray"
_PLANAR: Final = ("yuv420p", "yuvj420p", "nv12", _GREY)
_BT709: Final = 1
_UNSPECIFIED: Final = 2
_BOUND: Final = {"max_pixels": str(MAX_SIDE**2)}
_TOO_LARGE: Final = f"expected at most {MAX_SIDE}x{MAX_SIDE} pixels, got more or an invalid picture"
"""FFmpeg gives no size for pictures above its bound."""
_MATRICES: Final = (_BT709, _UNSPECIFIED, 5, 6)
"""Matrices of ISO/IEC 23091-2 that planes can name: BT.709, unspecified, and the two numbers of BT.601."""


def open_video(
    address: str,
    name: str,
    hwaccel: HWAccel | None,
    *,
    kind: str | None = None,
    options: Mapping[str, str] | None = None,
    timeout: tuple[float, float] | None = None,
) -> InputContainer:
    """Open a file or an address and check that it has video. `kind` is FFmpeg's format; None detects it.

    Pictures above `MAX_SIDE`² pixels are not decoded: one of half a MiB may take gigabytes. Raises `SourceError`, and
    the errors of `av.open`.
    """
    bounded = {**(options or {}), **_BOUND}
    container = av.open(address, mode="r", format=kind, options=bounded, timeout=timeout, hwaccel=hwaccel)
    try:
        _check_video(container, name)
    except SourceError:
        container.close()
        raise
    # The options of the container bound its probing alone.
    container.streams.video[0].codec_context.options = dict(_BOUND)
    return container


def _check_video(container: InputContainer, name: str) -> None:
    """Raise `SourceError` unless there is a video stream that can be decoded."""
    if not container.streams.video:
        kinds = ", ".join(stream.type for stream in container.streams) or "none"
        raise SourceError.of(name, f"expected a video stream, got {kinds}")
    # Without a decoder a stream has no codec context, in spite of the annotation.
    if not getattr(container.streams.video[0], "codec_context", None):
        raise SourceError.of(name, "expected a video stream with a known codec, got one without a decoder")


def decode_video(
    container: InputContainer,
    name: str,
    hang_s: float | None = None,
    clock: StreamClock | None = None,
    size: StreamSize | None = None,
) -> Iterator[av.VideoFrame]:
    """Yield the frames of the first video stream in presentation order, deinterlaced.

    A packet that does not decode is skipped. Invalid data ends a recording; a failed read, or a recording whose packets
    all do not decode, raises `SourceError`.

    With `hang_s`, raises `SourceHungError` when no frame came for this many seconds. The container must have been
    opened with the same read timeout, because only FFmpeg can interrupt a read. Each packet is passed to `clock`, and
    its bytes to `size`.
    """
    frames = _decoded(container, name, hang_s, clock, size)
    # FFmpeg's decoder of HEVC marks pictures of single fields, which have no rows of another moment.
    return frames if container.streams.video[0].codec_context.name == "hevc" else deinterlace(frames, name)


def _decoded(
    container: InputContainer, name: str, hang_s: float | None, clock: StreamClock | None, size: StreamSize | None
) -> Iterator[av.VideoFrame]:
    stream = container.streams.video[0]
    since = time.monotonic()
    refused = ""
    found = False
    # All streams are read: a stream that continues with sound alone has to be noticed too.
    packets = container.demux()
    ended = False
    while not ended:
        frames: Sequence[object] = ()
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            if hang_s is None and isinstance(error, av.EOFError | av.InvalidDataError):
                return  # a recording that is cut off
            if hang_s is not None:
                _raise_when_hung(name, since, hang_s, refused)
            raise SourceError.of(name, error.strerror or type(error).__name__) from None
        if packet is None:
            ended = True
        elif packet.stream.index == stream.index:
            if clock is not None:
                clock.note(packet)
            if size is not None:
                size.note(packet.size)
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                refused = error.strerror or type(error).__name__
                if isinstance(error, av.ArgumentError) and not stream.width:
                    refused = _TOO_LARGE
        # Check before the frames: after a timeout, FFmpeg may still return a delayed frame.
        if hang_s is not None:
            _raise_when_hung(name, since, hang_s, refused)
        for frame in frames:
            if isinstance(frame, av.VideoFrame):
                found = True
                yield frame
                since = time.monotonic()
                refused = ""
    if refused and not found:
        raise SourceError.of(name, f"no frame of it decodes: {refused}")


def to_rgb(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """Return a decoded frame as (H, W, 3) uint8.

    A matrix that FFmpeg's scaler does not know, such as YCgCo, is read as if none was named. Raises `SourceError` if
    there is no way to RGB.
    """
    try:
        return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
    except av.FFmpegError:
        matrix, frame.colorspace = frame.colorspace, _UNSPECIFIED
    try:
        return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
    except av.FFmpegError as error:
        reason = f"no conversion to RGB from {frame.format.name} with matrix {matrix}: {error.strerror}"
        raise SourceError.of("picture", reason) from None


def to_planes(frame: av.VideoFrame) -> Planes | None:
    """Return a decoded frame as planes, without a change of its samples; None if it is neither grey nor in 4:2:0 with 8
    bits, or names a matrix other than BT.601 and BT.709.

    Without a named matrix it is read as BT.601, without a named range as limited: FFmpeg's way to RGB reads it so too.
    """
    name = frame.format.name
    if name not in _PLANAR or frame.colorspace not in _MATRICES:
        return None
    frame = frame.reformat(format="yuv420p") if name == "nv12" else frame
    luma, *chroma = (_samples(plane) for plane in frame.planes[:3])
    blue, red = chroma or (None, None)
    # FFmpeg reads grey with the full range.
    full = name in ("yuvj420p", _GREY) or frame.color_range == av.video.reformatter.ColorRange.JPEG
    if frame.colorspace == _BT709:
        return Planes(luma, blue, red, Colour.BT709_FULL if full else Colour.BT709_LIMITED)
    return Planes(luma, blue, red, Colour.BT601_FULL if full else Colour.BT601_LIMITED)


def framed(frame: av.VideoFrame, framing: Framing, *, planar: bool) -> tuple[NDArray[np.uint8], Planes | None]:
    """Return the picture and the planes of a decoded frame as it is sent, as in `CapturedFrame`.

    There are planes if they are wanted, the frame has them, and nothing is cut.
    """
    if planar and framing.whole and (planes := to_planes(frame)) is not None:
        return planes.luma[..., None], planes
    is_grey = frame.format.name == _GREY
    return framing(_samples(frame.planes[0])[..., None] if is_grey else to_rgb(frame)), None


def _samples(plane: av.video.plane.VideoPlane) -> NDArray[np.uint8]:
    """Return the samples of a plane (H, W), a copy."""
    rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width].copy()


def _raise_when_hung(name: str, since: float, hang_s: float, refused: str) -> None:
    # FFmpeg's own timer may fire a little early by this clock.
    if time.monotonic() - since > hang_s - 0.05:
        cause = f"; its data does not decode: {refused}" if refused else ""
        raise SourceHungError.of(name, f"no frame for {hang_s:g} s{cause}")
