"""A video file as a source: every frame once, at positions that are exact."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock

import av
from av.container import InputContainer

from producers.sources.decoder import decode_video, framed, open_video
from producers.sources.framing import Framing
from producers.sources.hardware import accelerator
from producers.sources.orientation import orient
from producers.sources.settings import SourceSettings
from producers.sources.source import CapturedFrame
from producers.sources.stream_size import StreamSize
from schemas.errors import SourceError


class VideoSource:
    """The frames of a file, numbered as they are decoded; a position is found again by decoding up to it."""

    kind = "video"
    live = False
    blocking = True
    on_demand = False

    def __init__(self, settings: SourceSettings, *, planar: bool = False) -> None:
        """With `planar`, pictures are planes where the file has them."""
        assert settings.file is not None  # by the settings' own check
        self._file = settings.file
        self._name = f"video {settings.file}"
        self._loop = settings.loop
        self._hardware = settings.hardware
        self._framing = Framing.of(settings)
        self._planar = planar
        self._lock = Lock()
        self._position = 0
        self._count: int | None = None  # frames of the file, known once its end was reached
        self._size = StreamSize()
        self._container, self._frames, self._frame = self._open()
        self._next = 0  # number in the file of the frame that comes next from `_frames`

    def seek(self, position: int) -> None:
        """Continue at this frame; with `loop`, positions continue to count."""
        self._position = position

    def read(self) -> CapturedFrame | None:
        """Return the next frame; None at the end."""
        with self._lock:
            position = self._position
            frame = self._decode(position)
            if frame is None:
                return None
            self._position = position + 1
            picture, planes = framed(frame, self._frame, planar=self._planar)
            return CapturedFrame(picture, position, None, planes, stream_frame_bytes=self._size.frame_bytes)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._container.close()

    def _decode(self, position: int) -> av.VideoFrame | None:
        start = 0  # position at which the current pass through the file began
        while True:
            if self._count is not None:
                if position >= self._count and not self._loop:
                    return None
                start = position - position % self._count
            if self._next > position - start:
                self._container.close()
                self._container, self._frames, self._frame = self._open()
                self._next = 0
            for frame in self._frames:
                self._next += 1
                if start + self._next > position:
                    return frame
            if not self._next:
                raise SourceError.of(self._name, "no frame of it decodes")
            self._count = self._next

    def _open(self) -> tuple[InputContainer, Iterator[av.VideoFrame], Framing]:
        """Open the file and read its first frame."""
        try:
            # An absolute path: in `10:20.mp4`, FFmpeg would take `10` for a protocol.
            file = str(self._file.absolute())
            container = open_video(file, self._name, accelerator(self._hardware, self._name))
        except (av.FFmpegError, OSError, NotImplementedError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise SourceError.of(self._name, reason) from None
        try:
            frame, frames = orient(decode_video(container, self._name, size=self._size), self._framing, self._name)
        except SourceError:
            container.close()
            raise
        return container, frames, frame
