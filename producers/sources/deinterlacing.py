"""Deinterlacing of frames whose even and odd rows, the fields, show two moments, as analogue cameras record them."""

from __future__ import annotations

from collections.abc import Iterator

import av
from av.filter import Graph

from schemas.errors import SourceError


def deinterlace(frames: Iterator[av.VideoFrame], name: str) -> Iterator[av.VideoFrame]:
    """Yield the frames; one that the decoder marks as interlaced shows only the moment of its first field.

    FFmpeg's filter bwdif compares a frame with both neighbours. From the first interlaced frame on, each frame is
    therefore yielded when the next one has come; a progressive one is unchanged. At another size, format or colour, the
    filter starts again. Raises `SourceError` of the source called `name` if the filter rejects a frame.
    """
    bwdif: _Bwdif | None = None
    try:
        for frame in frames:
            if bwdif is not None and bwdif.layout == _layout(frame):
                yield bwdif.exchange(frame)
                continue
            if bwdif is not None:
                yield bwdif.exchange(None)
            bwdif = _Bwdif(frame) if frame.interlaced_frame else None
            if bwdif is None:
                yield frame
        if bwdif is not None:
            yield bwdif.exchange(None)
    except av.FFmpegError as error:
        reason = f"FFmpeg does not deinterlace its pictures: {error.strerror or type(error).__name__}"
        raise SourceError.of(name, f"{reason}. Set the camera or its encoder to progressive") from None


class _Bwdif:
    """The filter for frames of one layout. It holds the last frame."""

    def __init__(self, first: av.VideoFrame) -> None:
        self.layout = _layout(first)
        width, height, pixel_format, colorspace, color_range = self.layout
        self._graph = Graph()
        self._graph.threads = 1  # the default starts as many for each camera as the machine has cores
        # `Graph.add_buffer` has no colour: then a conversion, which nv12 of hardware decoders needs, changes it.
        source = self._graph.add(
            "buffer",
            video_size=f"{width}x{height}",
            pix_fmt=pixel_format,
            colorspace=str(colorspace),
            range=str(color_range),
            time_base="1/90000",  # any: `exchange` restores the times
        )
        bwdif = self._graph.add("bwdif", mode="send_frame", deint="interlaced")
        self._graph.link_nodes(source, bwdif, self._graph.add("buffersink")).configure()
        self._held = first
        self._graph.vpush(first)

    def exchange(self, following: av.VideoFrame | None) -> av.VideoFrame:
        """Return the held frame, deinterlaced if it is interlaced, and hold the one that follows; None ends."""
        self._graph.vpush(following)
        frame = self._graph.vpull()
        # The filter doubles each time, and gives a frame without a time a wrong one.
        frame.pts, frame.time_base = self._held.pts, self._held.time_base
        if following is not None:
            self._held = following
        return frame


def _layout(frame: av.VideoFrame) -> tuple[int, int, str, int, int]:
    """Return width, height, pixel format, matrix and range."""
    return frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range)
