"""An encoder of one group of pictures: the first is a key frame, each other depends on the previous ones.

Each picture gives one access unit at once: no encoder here looks ahead, reorders or holds a picture back. Encoders run
on one thread.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from fractions import Fraction
from typing import Final, Protocol

import av
import numpy as np

from schemas.errors import SourceError
from schemas.messages.access_unit import Codec
from schemas.pixels.planes import NEUTRAL, Plane, Planes, chroma_shape
from schemas.runtime.priority import same_scheduling

# SVT-AV1 writes lines to stderr, except errors.
os.environ.setdefault("SVT_LOG", "1")

PROBE_CRF: Final = 10
"""libx264's rate factor of a probe: about 50 dB."""
_ENDLESS: Final = str(2**30)
"""Pictures between two key frames: a group ends by a new encoder."""
_TICKS: Final = 90_000
_SOFTWARE: Final = {Codec.H264: "libx264", Codec.AV1: "libsvtav1"}


class Encoder(Protocol):
    """The encoder of one group of pictures of one size."""

    name: str
    """The encoder's name in FFmpeg."""
    codec: Codec

    def encode(self, planes: Planes) -> bytes:
        """Return the access unit of the next picture; `SourceError` if the encoder fails."""

    def close(self) -> None:
        """Release the encoder."""


class FFmpegEncoder:
    """An encoder of FFmpeg, through PyAV."""

    def __init__(
        self,
        name: str,
        codec: Codec,
        height: int,
        width: int,
        rate: float,
        options: Mapping[str, str],
        layout: str = "yuv420p",
    ) -> None:
        """`rate` is in pictures a second, `layout` is the pixel format that the encoder takes, with 4:2:0 chroma.

        Raises `SourceError` if FFmpeg cannot open the encoder.
        """
        self.name = name
        self._layout = layout
        self.codec = codec
        # Codecs take even sides only. The decoder cuts the rest off.
        self._height, self._width = height + height % 2, width + width % 2
        self._step = max(1, round(_TICKS / rate))
        self._number = 0
        try:
            context = av.CodecContext.create(name, "w")
            assert isinstance(context, av.VideoCodecContext)
            context.width, context.height, context.pix_fmt = self._width, self._height, layout
            context.time_base, context.framerate = Fraction(1, _TICKS), Fraction(rate).limit_denominator(1000)
            context.thread_count = 1
            context.options = {**options, "g": _ENDLESS}
            # Run by root, SVT-AV1 gives the whole process real-time priority: it would starve all others, and what it
            # starts would inherit that.
            with same_scheduling() if codec is Codec.AV1 else nullcontext():
                context.open()
        except (av.FFmpegError, ValueError, OSError) as error:
            raise SourceError(f"encoder {name}: {getattr(error, 'strerror', None) or error}") from None
        self._context: av.VideoCodecContext = context

    def encode(self, planes: Planes) -> bytes:
        """Return the access unit of the next picture."""
        frame = av.VideoFrame(self._width, self._height, "yuv420p")
        blue, red = planes.blue, planes.red
        if blue is None or red is None:
            blue = red = np.full(chroma_shape(*planes.luma.shape), NEUTRAL, dtype=np.uint8)
        for target, plane in zip(frame.planes, (planes.luma, blue, red), strict=True):
            _copy(plane, target)
        frame.pts, frame.time_base = self._number * self._step, Fraction(1, _TICKS)
        self._number += 1
        try:
            packets = self._context.encode(frame if self._layout == "yuv420p" else frame.reformat(format=self._layout))
        except av.FFmpegError as error:
            raise SourceError(f"encoder {self.name}: {error.strerror or error}") from None
        if len(packets) != 1:
            raise SourceError(f"encoder {self.name}: expected one access unit for a picture, got {len(packets)}")
        data = bytes(packets[0])
        return without_remarks(data) if self.codec is Codec.H264 else data

    def close(self) -> None:
        """Release the encoder. SVT-AV1 complains unless it is drained."""
        if self.codec is Codec.AV1:
            self._context.encode(None)


def software_encoder(
    codec: Codec, height: int, width: int, rate: float, crf: float, max_bytes_per_second: int | None = None
) -> Encoder:
    """Return the software encoder of a codec; `rate` is in pictures a second."""
    if codec is Codec.H264:
        options = {"preset": "ultrafast", "tune": "zerolatency", "crf": str(crf), "forced-idr": "1"}
        if max_bytes_per_second is not None:
            options |= {"maxrate": str(8 * max_bytes_per_second), "bufsize": str(8 * max_bytes_per_second)}
    else:
        # Low delay, one thread, no key frame at a change of scene. SVT-AV1 takes the cap as kbit/s.
        params = "pred-struct=1:lookahead=0:lp=1:scd=0"
        if max_bytes_per_second is not None:
            params += f":mbr={max(1, 8 * max_bytes_per_second // 1000)}"
        options = {"preset": "10", "crf": str(crf), "svtav1-params": params}
    return FFmpegEncoder(_SOFTWARE[codec], codec, height, width, rate, options)


def limited_encoder(
    height: int, width: int, rate: float, crf: float, bytes_per_second: float, buffer_bytes: int, full_bytes: float
) -> Encoder:
    """Return the software encoder of H.264 with a buffer that limits its bytes.

    The buffer holds `full_bytes` at first and fills with `bytes_per_second`, at `rate` pictures a second.
    """
    options = {"preset": "ultrafast", "tune": "zerolatency", "crf": str(crf), "forced-idr": "1"}
    options |= {"maxrate": str(round(8 * bytes_per_second)), "bufsize": str(8 * buffer_bytes)}
    options |= {"rc_init_occupancy": str(round(8 * full_bytes))}
    return FFmpegEncoder(_SOFTWARE[Codec.H264], Codec.H264, height, width, rate, options)


def encode_alone(planes: Planes, crf: int = PROBE_CRF) -> bytes:
    """Return the access unit, in H.264, of one picture that depends on no other."""
    height, width, _ = planes.shape
    encoder = software_encoder(Codec.H264, height, width, 1.0, crf)
    try:
        return encoder.encode(planes)
    finally:
        encoder.close()


def without_remarks(unit: bytes) -> bytes:
    """Return an access unit of H.264 (Annex B) without supplemental information (NAL units of type 6).

    libx264 writes its version and options there, some 700 bytes in each key frame.
    """
    starts = []
    at = unit.find(b"\0\0\1")
    while at >= 0:
        starts.append(at)
        at = unit.find(b"\0\0\1", at + 3)
    kept = bytearray()
    for start, end in zip(starts, [*starts[1:], len(unit)], strict=True):
        if unit[start + 3] & 31 != 6:
            kept += unit[start:end].rstrip(b"\0") if end < len(unit) else unit[start:end]
    return bytes(kept)


def _copy(plane: Plane, target: av.video.plane.VideoPlane) -> None:
    """Copy a plane into FFmpeg's memory; its last row and column fill what is left of even sides."""
    rows = np.frombuffer(memoryview(target), dtype=np.uint8).reshape(-1, target.line_size)
    height, width = plane.shape
    rows[:height, :width] = plane
    if target.width > width:
        rows[:height, width] = plane[:, -1]
    if target.height > height:
        rows[height] = rows[height - 1]
