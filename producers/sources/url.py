"""Any URL that FFmpeg opens as a source: RTSP, HTTP, a V4L2 device.

FFmpeg times its waits for the network. It does not time those for a V4L2 device: the reader and the camera do.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from threading import Lock
from typing import Final
from urllib.parse import urlsplit

import av
from av.container import InputContainer

from producers.sources.clock import StreamClock
from producers.sources.decoder import decode_video, framed, open_video
from producers.sources.framing import Framing
from producers.sources.hardware import accelerator
from producers.sources.login import with_login
from producers.sources.orientation import orient
from producers.sources.settings import SourceSettings
from producers.sources.source import CapturedFrame, DecodedFrame
from producers.sources.stream_size import StreamSize
from schemas.errors import SourceError, SourceHungError

_FETCH_EVERY_S: Final = 0.1
"""Least interval between two fetches of a still picture, for a camera without a rate."""


def public_address(address: str) -> str:
    """Return the address without user, password, path, query and fragment, as messages may show it: some cameras
    carry the password in the path.

    If an @ follows the apparent end of the host, a password may contain it: then only the scheme is shown.
    """
    if "://" not in address:
        return address
    scheme = address.partition("://")[0]
    try:
        parts = urlsplit(address)
    except ValueError:
        return f"{scheme}://…"
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return f"{scheme}://…"
    hidden = "/…" if parts.path.strip("/") or parts.query or parts.fragment else parts.path
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{hidden}"


def open_container(settings: SourceSettings, name: str) -> InputContainer:
    """Open the address of `settings` and check that it has video; `SourceError` of the source called `name`.

    The login is read now: a changed password applies from the next opening on.
    """
    assert settings.address is not None  # by the settings' own check
    address = settings.address.get_secret_value()
    login = None if settings.login is None else settings.login.read()
    decoding = accelerator(settings.hardware, name)
    started = time.monotonic()
    try:
        address = address if login is None else with_login(address, *login)
        return open_video(
            address,
            name,
            decoding,
            kind="v4l2" if address.startswith("/dev/video") else None,
            # Over TCP a lost packet is sent again and firewalls let the stream through. Some cameras have UDP alone.
            options={"rtsp_flags": "prefer_tcp"} if address.startswith(("rtsp://", "rtsps://")) else {},
            timeout=(settings.open_s, settings.hang_s),
        )
    except (av.FFmpegError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        # FFmpeg reports a timeout by different errors, depending on the protocol.
        if time.monotonic() - started > settings.open_s - 0.05:
            raise SourceHungError.of(name, f"did not answer for {settings.open_s:g} s") from None
        # str(error) would repeat the whole address.
        raise SourceError.of(name, getattr(error, "strerror", None) or type(error).__name__) from None


def is_snapshot(container: InputContainer, settings: SourceSettings) -> bool:
    """Return whether a web address gives a still picture instead of a stream."""
    assert settings.address is not None  # by the settings' own check
    is_web = settings.address.get_secret_value().lower().startswith(("http://", "https://"))
    return is_web and (container.format.name == "image2" or container.format.name.endswith("_pipe"))


def fetch_snapshots(
    settings: SourceSettings, name: str, clock: StreamClock | None = None, size: StreamSize | None = None
) -> Iterator[av.VideoFrame]:
    """Fetch the still picture of the address for each frame, at most ten times a second; `SourceError` if that fails.

    `clock` and `size` are the same as in `decode_video`.
    """
    while True:
        begun = time.monotonic()
        with open_container(settings, name) as container:
            frame = next(decode_video(container, name, settings.hang_s, clock, size), None)
        if frame is None:
            raise SourceError.of(name, "no frame of it decodes")
        yield frame
        time.sleep(max(0.0, begun + _FETCH_EVERY_S - time.monotonic()))


class UrlSource:
    """A stream, read as it comes, or a still picture, fetched again for each frame.

    It is live unless the other side states its duration (a file on a web server): that can wait, and ends. Its first
    frame is read at the opening, for the orientation. When a live stream ends, something is wrong with it.
    """

    kind = "url"
    blocking = True

    def __init__(self, settings: SourceSettings, *, planar: bool = False) -> None:
        """With `planar`, pictures are planes where the stream has them."""
        assert settings.address is not None  # by the settings' own check
        address = settings.address.get_secret_value()
        self._name = public_address(address)
        self._hang_s = settings.hang_s
        self._frame = Framing.of(settings)
        self._planar = planar
        self._lock = Lock()
        self._position = self._next = 0
        self.clock = StreamClock() if settings.clock == "auto" else None
        self.container = open_container(settings, self._name)
        self.on_demand = is_snapshot(self.container, settings)
        self.live = self.on_demand or not self.container.duration
        self._size = StreamSize()
        self._frames = decode_video(self.container, self._name, settings.hang_s, self.clock, self._size)
        try:
            if self.live:
                stream = self.container.streams.video[0]
                self._frame.check(self._name, stream.width, stream.height)
            else:
                self._frame, self._frames = orient(self._frames, self._frame, self._name)
        except SourceError:
            self.container.close()
            raise
        if self.on_demand:
            self.container.close()
            self._frames = fetch_snapshots(settings, self._name, size=self._size)

    def seek(self, position: int) -> None:
        """Pass over all frames before this one when the stream can wait; it is never read backwards."""
        if not self.live:
            self._position = position

    def read(self) -> CapturedFrame | None:
        """Return the next frame; None at the end of a stream that has one."""
        found = self.read_decoded()
        return found.convert() if isinstance(found, DecodedFrame) else found

    def read_decoded(self) -> CapturedFrame | DecodedFrame | None:
        """Return the next frame, not converted if the stream is live and its frames are not sent as they are."""
        with self._lock:
            for frame in self._frames:
                position = self._next
                self._next += 1
                if self.live or position >= self._position:
                    captured_ms = self.clock.captured_ms(frame, time.time_ns() // 10**6) if self.clock else None
                    at_ms = captured_ms if self.live else None
                    convert = partial(self._converted, frame, position, at_ms, self._size.frame_bytes)
                    at_once = not self.live or (self._planar and self._frame.whole)
                    return convert() if at_once else DecodedFrame(convert, at_ms, 3 * frame.width * frame.height)
        if self.live:
            raise SourceError.of(self._name, "the other side ended the stream")
        return None

    def _converted(
        self, frame: av.VideoFrame, position: int, captured_ms: int | None, stream_frame_bytes: int
    ) -> CapturedFrame:
        picture, planes = framed(frame, self._frame, planar=self._planar)
        return CapturedFrame(picture, position, None, planes, captured_ms, stream_frame_bytes)

    def close(self) -> None:
        """Close the connection; that of a fetch in progress closes itself."""
        if not self.on_demand:
            with self._lock:
                self.container.close()
