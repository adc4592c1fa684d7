"""Readers of a source: on the event loop, or in a thread when a read may block."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from typing import Final, NamedTuple, Protocol

import structlog

from producers.sources.source import CapturedFrame, DecodedFrame, DecodingSource, Source
from schemas.clock import unix_ms
from schemas.errors import SourceHungError
from schemas.runtime.daemon_thread import run_in_daemon_thread, start_daemon_thread

_log = structlog.get_logger()
_AHEAD_BYTES: Final = 16 * 2**20
_SPARE_S: Final = 1.0
"""Seconds beyond its limit in which a source may report itself that it hangs."""


class TimedFrame(NamedTuple):
    """A frame and the time of its reading, Unix time in milliseconds."""

    captured: CapturedFrame
    captured_ms: int


class Reader(Protocol):
    """The interface through which a camera's capture loop reads frames."""

    async def next(self) -> TimedFrame | None:
        """Return the next frame, None if the source has ended; raise its `SourceError`, or `SourceHungError` if a live
        source does not return."""

    def check(self) -> bool:
        """Return whether a frame waits. If a live source has failed or hangs, raise its error at once, although frames
        that were read before it wait."""

    def take_skipped(self) -> int:
        """Return the number of frames of a live source that were replaced unread since the last call."""

    def discard(self) -> None:
        """Drop the frames of a live source that were read ahead."""

    def keep_ahead(self, frames: int) -> None:
        """Set the number of newest frames of a live source that may wait."""

    def close(self) -> None:
        """Stop reading and close the source."""


def read_from(source: Source, ahead: int = 1, hang_s: float | None = None) -> Reader:
    """Return the reader that suits a source; `ahead` frames of a live one may wait, its newest ones.

    With `hang_s`, a live source that gives no frame for this many seconds hangs.
    """
    if source.blocking and source.on_demand:
        return OnDemandReader(source)
    return ThreadReader(source, ahead, hang_s) if source.blocking else InlineReader(source)


class InlineReader:
    """Reads on the event loop: for sources that answer within a fraction of a millisecond."""

    def __init__(self, source: Source) -> None:
        self._source = source

    async def next(self) -> TimedFrame | None:
        """Read one frame."""
        captured = await self._read()
        return None if captured is None else TimedFrame(captured, unix_ms())

    async def _read(self) -> CapturedFrame | None:
        return self._source.read()

    def check(self) -> bool:
        """Return False: nothing is read ahead."""
        return False

    def take_skipped(self) -> int:
        """Return 0: every frame that is read is returned."""
        return 0

    def discard(self) -> None:
        """Do nothing: no frame is read ahead."""

    def keep_ahead(self, frames: int) -> None:
        """Do nothing: no frame is read ahead."""

    def close(self) -> None:
        """Close the source."""
        self._source.close()


class OnDemandReader(InlineReader):
    """Reads each frame in a thread when it is due, and none ahead."""

    async def _read(self) -> CapturedFrame | None:
        return await run_in_daemon_thread(self._source.read, f"source-{self._source.kind}")


class _Ahead(NamedTuple):
    """A frame that was read ahead."""

    frame: CapturedFrame | DecodedFrame
    captured_ms: int

    @property
    def nbytes(self) -> int:
        return self.frame.nbytes if isinstance(self.frame, DecodedFrame) else self.frame.picture.nbytes


class ThreadReader:
    """Reads in a thread, one frame ahead.

    For a live source, a new frame replaces the oldest unread one beyond `ahead` frames or `_AHEAD_BYTES`; other sources
    wait. The thread closes the source itself, because a read may be in progress when the camera stops. The thread of a
    read that never returns is abandoned.
    """

    def __init__(self, source: Source, ahead: int = 1, hang_s: float | None = None) -> None:
        self._source = source
        self._wait_s = hang_s + _SPARE_S if hang_s is not None and source.live else None
        self._most = ahead
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._change = threading.Condition()
        self._ahead: deque[_Ahead] = deque()
        self._skipped = 0
        self._closed = False
        self._read_at = time.monotonic()  # of the last frame
        self._ended = False
        self._failure: BaseException | None = None
        start_daemon_thread(self._run, f"source-{source.kind}")

    async def next(self) -> TimedFrame | None:
        """Wait for the next frame. Frames that were read before an end or a failure come first."""
        reading = await self._next()
        if reading is None:
            return None
        frame, captured_ms = reading
        if isinstance(frame, DecodedFrame):
            frame = await run_in_daemon_thread(frame.convert, f"source-{self._source.kind}-picture")
        # A frame that waited for its turn in the schedule is captured when its turn comes.
        return TimedFrame(frame, captured_ms if self._source.live else unix_ms())

    async def _next(self) -> _Ahead | None:
        is_late = False
        while True:
            with self._change:
                if self._ahead:
                    self._change.notify()
                    return self._ahead.popleft()
                if self._failure is not None:
                    raise self._failure
                if self._ended:
                    return None
                if is_late:
                    raise self._hung()
                self._ready.clear()
            try:
                async with asyncio.timeout(self._wait_s):
                    await self._ready.wait()
            except TimeoutError:
                is_late = True

    def check(self) -> bool:
        """Return whether a frame waits; raise the error of a live source that has failed or hangs."""
        with self._change:
            if self._source.live and self._failure is not None:
                raise self._failure
            if self._wait_s is not None and not self._ended and time.monotonic() - self._read_at > self._wait_s:
                raise self._hung()
            return bool(self._ahead)

    def take_skipped(self) -> int:
        """Return the number of frames replaced since the last call."""
        with self._change:
            skipped, self._skipped = self._skipped, 0
        return skipped

    def discard(self) -> None:
        """Drop the frames of a live source that were read ahead; they do not count as skipped."""
        if self._source.live:
            with self._change:
                self._ahead.clear()
                self._skipped = 0

    def keep_ahead(self, frames: int) -> None:
        """Set the number of frames that may wait; skip the oldest beyond it."""
        with self._change:
            self._most = frames
            if self._source.live:
                self._make_room(frames)

    def close(self) -> None:
        """End the thread; it closes the source after the current read."""
        with self._change:
            self._closed = True
            self._change.notify()

    def _run(self) -> None:
        try:
            source = self._source
            read = source.read_decoded if isinstance(source, DecodingSource) else source.read
            while not self._closed:
                frame = read()
                if frame is None:
                    break
                self._put(_Ahead(frame, unix_ms() if frame.captured_ms is None else frame.captured_ms))
        except BaseException as failure:  # raised again by `next`, on the loop
            self._failure = failure
        finally:
            self._ended = True
            try:
                self._source.close()
            except Exception:
                _log.exception("source_close_failed", source=self._source.kind)
            finally:
                self._wake()

    def _put(self, reading: _Ahead) -> None:
        with self._change:
            if self._source.live:
                room = min(self._most, max(1, _AHEAD_BYTES // max(1, reading.nbytes)))
                self._make_room(room - 1)
            else:
                while self._ahead and not self._closed:
                    self._change.wait()
            self._ahead.append(reading)
            self._read_at = time.monotonic()
        self._wake()

    def _make_room(self, left: int) -> None:
        while len(self._ahead) > left:
            self._ahead.popleft()
            self._skipped += 1

    def _hung(self) -> SourceHungError:
        reason = f"no frame for {self._wait_s:g} s, and its read does not return"
        return SourceHungError.of(f"the source of kind {self._source.kind}", reason)

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._ready.set)
