"""Latency traces: time stamps of a frame on its way through the roles, taken only on request.

A process with a trace folder writes one line for each stamp to its own file: `nanoseconds since 1970 <TAB> stamp <TAB>
frame`. The frame is its identity, `SITE/CAMERA/BOOT/SEQ`. On one machine, or on several with synchronised clocks, the
lines of all roles together are the frame's way. Stamps are for measurement: they are written up to half a second late,
and a kill loses those.

A process with an exporter of spans makes spans of the same stamps, for sampled frames only (`schemas.runtime.spans`).
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from schemas.identity import Identity
from schemas.runtime.spans import Export, FrameSpans, RoleName, parsed

STAMPS: Final = (
    "captured",
    "taken",
    "sealed",
    "spooled",
    "published",
    "received",
    "sent",
    "stored",
    "fetched",
    "device",
    "classified",
    "checked",
    "answered",
    "delivered",
    "gathered",
    "recorded",
    "committed",
    "confirmed",
)
"""In the order in which a frame gets them: read from the source; taken by the camera's loop; dropped, encoded and
sealed; in the spool; written to MQTT's socket; verified by the bridge; on its way to Kafka; in Kafka. Received by a
processor; on the device; classified; through STRIP, if it was a probe; its verdict on the way to Kafka; in Kafka.
Received by the recorder; its transaction begins; is committed. The last one, at the camera, has no order with those
behind the bridge: confirmed by the bridge.
"""
TRACEPARENT: Final = "traceparent"
"""The header of a Kafka record with the place of a frame in its trace."""
WRITE_AFTER_S: Final = 0.5


class _Trace:
    """The stamps of one process."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._stamps: list[tuple[int, str, object]] = []
        self._changing = threading.Lock()
        self._written_ns = time.time_ns()

    def note(self, what: str, frames: Iterable[object], at_ns: int | None) -> None:
        now_ns = time.time_ns()
        stamped_ns = now_ns if at_ns is None else at_ns
        stamps = [(stamped_ns, what, frame) for frame in frames]
        with self._changing:
            self._stamps += stamps
        if abs(now_ns - self._written_ns) > WRITE_AFTER_S * 1e9:  # the clock may have been set back
            self._written_ns = now_ns
            self.write()

    def write(self) -> None:
        # Several threads stamp: the thread that takes a list writes it.
        with self._changing:
            stamps, self._stamps = self._stamps, []
        lines = (f"{at_ns}\t{what}\t{frame}\n" for at_ns, what, frame in stamps)
        with suppress(OSError):  # a failed measurement ends nothing
            os.write(self._file, "".join(lines).encode())


_active: _Trace | None = None
_spans: FrameSpans | None = None


def begin(folder: Path, name: str) -> None:
    """Write this process's stamps to a file in `folder` from now on; create the folder. Raises OSError."""
    global _active
    folder.mkdir(parents=True, exist_ok=True)
    _active = _Trace(folder / f"{name}-{os.getpid()}.tsv")
    atexit.register(_active.write)


def end() -> None:
    """Write the remaining stamps, and no more after them."""
    global _active
    if _active is not None:
        atexit.unregister(_active.write)
        _active.write()
    _active = None


def begin_spans(export: Export, share: float = 0.0) -> None:
    """Export the spans of sampled frames from now on; `share` of this process's own cameras' frames are sampled."""
    global _spans
    _spans = FrameSpans(export, share)


def end_spans() -> None:
    """Export the spans of the frames that the process still has, and none after them."""
    global _spans
    ended, _spans = _spans, None
    if ended is not None:
        ended.close()


def sample(frame: Identity) -> bool:
    """Return whether a new frame of a camera of this process is traced; call it before the frame's first stamp."""
    spans = _spans
    return spans is not None and spans.sample(str(frame))


def follow(role: RoleName, frame: Identity | str, header: bytes) -> bytes | None:
    """Follow a frame from the role before into `role`, and return the header `traceparent` for the next role.

    None if the header is malformed or of another trace. A frame that is not sampled has its header unchanged, and a
    process without spans hands every header on. Beyond the bound on frames a second, the flag `sampled` is removed.
    """
    spans = _spans
    if spans is None:
        return header
    before = parsed(header)
    if before is None or not before.sampled:
        return None if before is None else header
    place = spans.follow(role, str(frame), before)
    return None if place is None else place.header()


def leave(role: RoleName, frame: Identity) -> None:
    """Follow a frame no longer that `role` did not take."""
    spans = _spans
    if spans is not None and len(spans):
        spans.leave(role, str(frame))


def on() -> bool:
    """Return whether a stamp would be taken: check it before a loop over a batch."""
    spans = _spans
    return _active is not None or (spans is not None and len(spans) > 0)


def stamp(what: str, *frames: Identity | str, at_ns: int | None = None) -> None:
    """Stamp frames, each an identity or its text, with `what`, one of `STAMPS`: now, or at a Unix time.

    Does nothing unless `begin` or `begin_spans` was called.
    """
    if _active is not None:
        _active.note(what, frames, at_ns)
    spans = _spans
    if spans is not None and len(spans):
        spans.stamp(what, frames, time.time_ns() if at_ns is None else at_ns)
