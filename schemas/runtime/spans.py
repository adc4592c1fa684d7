"""Spans of sampled frames: each role's part of a frame's way, made from its stamps (`schemas.runtime.trace`).

The ids of a trace follow from the frame's identity: no message carries them, and no sender can choose them. A camera
marks a sampled frame by the signed field `traced`. The later roles learn it from the header `traceparent` (W3C Trace
Context, level 1) of the Kafka record: its flag `sampled`, and the span of the role before.

Each process follows a bounded number of frames a second, of each camera and in all. A frame beyond the bound is handed
on without the flag, so no camera can make other roles trace all of its frames.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from threading import Lock
from typing import Final, Literal, NamedTuple

FRAMES_PER_S: Final = 100
"""Maximum number of frames that a process follows in a second."""
CAMERA_FRAMES_PER_S: Final = 10
"""Maximum number of frames of one camera among them."""
OPEN_FRAMES: Final = 1_024
"""Maximum number of frames that a process follows at once; the oldest is closed for a new one."""
PATIENCE_S: Final = 600.0
"""Seconds after which a frame that has not left the role is closed."""
NAME_CHARACTERS: Final = 100
"""Maximum length of a frame's identity as text."""

RoleName = Literal["camera", "bridge", "processor", "recorder"]
_TRACEPARENT: Final = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_RANDOM_DIGITS: Final = 14
"""Last hexadecimal digits of a trace id, from which its sampling follows: 56 bits, as in W3C Trace Context, level 2."""


class Context(NamedTuple):
    """The place of a span: what a `traceparent` holds."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    sampled: bool

    def header(self) -> bytes:
        """Return the value of the header `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}".encode()


class Span(NamedTuple):
    """A finished span: a role's whole part of a frame's way, or one step of it."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    """The span before it in the frame's way, or around it; empty for the camera's."""
    began_ns: int
    ended_ns: int
    frame: str
    complete: bool
    """Whether the frame has left the role."""


Export = Callable[[Sequence[Span]], None]


class _RoleSteps(NamedTuple):
    """The part of one role: its first and its last stamp, and its steps from stamp to stamp."""

    first: str
    last: str
    steps: tuple[tuple[str, str, str], ...]


_WAYS: Final[dict[RoleName, _RoleSteps]] = {
    "camera": _RoleSteps(
        "captured",
        "confirmed",
        (
            ("capture", "captured", "taken"),
            ("seal", "taken", "sealed"),
            ("spool", "sealed", "spooled"),
            ("wait", "spooled", "published"),
            ("publish", "published", "confirmed"),
        ),
    ),
    "bridge": _RoleSteps("received", "stored", (("wait", "received", "sent"), ("publish", "sent", "stored"))),
    "processor": _RoleSteps(
        "fetched",
        "delivered",
        (
            ("wait", "fetched", "device"),
            ("classify", "device", "classified"),
            ("strip", "classified", "checked"),
            ("publish", "answered", "delivered"),
        ),
    ),
    "recorder": _RoleSteps(
        "gathered", "committed", (("wait", "gathered", "recorded"), ("store", "recorded", "committed"))
    ),
}
_ROLE_OF: Final[dict[str, RoleName]] = {
    stamp: role for role, way in _WAYS.items() for _, first, last in way.steps for stamp in (first, last)
}


def root(frame: str, *, sampled: bool = False) -> Context:
    """Return the trace of a frame and its first span, the camera's."""
    digits = blake2b(frame.encode(), digest_size=24).hexdigest()
    return Context(digits[:32], digits[32:], sampled)


def parsed(header: bytes) -> Context | None:
    """Read the header `traceparent`; None if it is malformed."""
    found = _TRACEPARENT.fullmatch(header)
    if found is None:
        return None
    return Context(found[1].decode(), found[2].decode(), bool(int(found[3], 16) & 1))


def in_share(context: Context, share: float) -> bool:
    """Return whether a trace is among the sampled `share` of all, 0 to 1."""
    return int(context.trace_id[-_RANDOM_DIGITS:], 16) >= (1 - share) * 16**_RANDOM_DIGITS


class _OpenFrame:
    """A frame that the role has and has not yet passed on."""

    def __init__(self, place: Context, parent_id: str, since_s: float) -> None:
        self.place = place
        self.parent_id = parent_id
        self.since_s = since_s
        self.stamps: dict[str, int] = {}


class _Bound:
    """The frames that are followed in one second. Its memory is bounded by their number."""

    def __init__(self) -> None:
        self._second = 0
        self._frames: Counter[str] = Counter()

    def accepts(self, camera: str, now_s: float) -> bool:
        if int(now_s) != self._second:
            self._second = int(now_s)
            self._frames.clear()
        if self._frames.total() >= FRAMES_PER_S or self._frames[camera] >= CAMERA_FRAMES_PER_S:
            return False
        self._frames[camera] += 1
        return True


class FrameSpans:
    """The sampled frames of one process, from their arrival in a role until it passes them on. Threads may share it."""

    def __init__(self, export: Export, share: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        """`export` receives finished spans. `share` is the sampled share of this process's own cameras' frames."""
        self._export = export
        self._share = share
        self._clock = clock
        self._bound = _Bound()
        self._lock = Lock()
        self._open: OrderedDict[tuple[RoleName, str], _OpenFrame] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def sample(self, frame: str) -> bool:
        """Return whether this new frame of a camera is traced, and follow it if so."""
        place = root(frame, sampled=True)
        return in_share(place, self._share) and self._follow("camera", frame, place, "")

    def follow(self, role: RoleName, frame: str, before: Context) -> Context | None:
        """Follow a sampled frame into `role`, and return the place of the role's span.

        `before` is the span of the role before; the result is None if it is of another trace. Beyond the bound the
        result is `before` without the flag.
        """
        if before.trace_id != root(frame).trace_id or len(frame) > NAME_CHARACTERS:
            return None
        place = before._replace(span_id=_new_span_id())
        return place if self._follow(role, frame, place, before.span_id) else before._replace(sampled=False)

    def stamp(self, what: str, frames: Iterable[object], at_ns: int) -> None:
        """Note the time of a stamp for those of the frames that are followed; the role's last stamp closes a frame."""
        role = _ROLE_OF[what]
        for frame in frames:
            name = str(frame)
            with self._lock:
                opened = self._open.get((role, name))
                if opened is None:
                    continue
                opened.stamps.setdefault(what, at_ns)
                if what != _WAYS[role].last:
                    continue
                del self._open[role, name]
            self._close(role, name, opened)

    def leave(self, role: RoleName, frame: str) -> None:
        """Follow a frame no longer that the role did not take."""
        with self._lock:
            self._open.pop((role, frame), None)

    def close(self) -> None:
        """Export the spans of the frames that the process still has."""
        with self._lock:
            left = list(self._open.items())
            self._open.clear()
        for (role, name), opened in left:
            self._close(role, name, opened)

    def _follow(self, role: RoleName, frame: str, place: Context, parent_id: str) -> bool:
        now_s = self._clock()
        with self._lock:
            if not self._bound.accepts(frame.rsplit("/", 2)[0], now_s):
                return False
            old = []
            if (role, frame) in self._open:  # a repeat: delivery is at least once
                old.append((role, frame, self._open.pop((role, frame))))
            while self._open:
                (its_role, name), opened = next(iter(self._open.items()))
                if len(self._open) < OPEN_FRAMES and now_s - opened.since_s < PATIENCE_S:
                    break
                old.append((its_role, name, self._open.pop((its_role, name))))
            self._open[role, frame] = _OpenFrame(place, parent_id, now_s)
        for each in old:
            self._close(*each)
        return True

    def _close(self, role: RoleName, frame: str, opened: _OpenFrame) -> None:
        way, stamps, (trace_id, span_id, _) = _WAYS[role], opened.stamps, opened.place
        if way.first not in stamps:
            return
        # A capture's time, in milliseconds and by the source's clock, may be later than the next stamp.
        began_ns, ended_ns = min(stamps.values()), max(stamps.values())
        spans = [Span(role, trace_id, span_id, opened.parent_id, began_ns, ended_ns, frame, way.last in stamps)]
        for name, first, last in way.steps:
            if first in stamps and last in stamps:
                began_ns, ended_ns = sorted((stamps[first], stamps[last]))
                spans.append(Span(name, trace_id, _new_span_id(), span_id, began_ns, ended_ns, frame, True))
        self._export(spans)


def _new_span_id() -> str:
    return f"{random.getrandbits(64) or 1:016x}"
