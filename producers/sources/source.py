"""The protocol of a camera source."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from schemas.messages.frame import Truth
from schemas.pixels.planes import Planes


class CapturedFrame(NamedTuple):
    """One picture of a source."""

    picture: NDArray[np.uint8]
    """(H, W, C) with 1 channel (grey) or 3 (RGB); only the luma (H, W, 1) if `planes` are set."""
    position: int
    """Its index in the source, from 0: `seek` to the next one continues there."""
    truth: Truth | None
    planes: Planes | None = None
    """The picture as planes, from a source that was opened for them."""
    captured_ms: int | None = None
    """The capture time in Unix milliseconds, if the source measures it better than its reader."""
    stream_frame_bytes: int = 0
    """Mean bytes of a frame of the source's own video stream; 0 without one."""


class DecodedFrame(NamedTuple):
    """A frame of a live stream, not converted into a picture yet: that takes long, and most frames may be skipped."""

    convert: Callable[[], CapturedFrame]
    captured_ms: int | None
    """The same as in `CapturedFrame`."""
    nbytes: int
    """Bytes that it holds in memory."""


class Source(Protocol):
    """The source of one camera's pictures, read by one thread at a time."""

    kind: str
    live: bool
    """Whether the source cannot wait: unread pictures are lost. A source that is not live gives every picture."""
    blocking: bool
    """Whether a read may block so long that it belongs into a thread."""

    on_demand: bool
    """Whether pictures depend on the time of the read: the source is then never read ahead."""

    def seek(self, position: int) -> None:
        """Make the next read return the picture of this position; a live source ignores it."""
        ...

    def read(self) -> CapturedFrame | None:
        """Return the next picture, or None at the end. Raises `SourceHungError` if a live source gave no picture within
        its time limit, `SourceError` if it cannot be read.
        """
        ...

    def close(self) -> None:
        """Release files and connections, after any read in another thread."""
        ...


@runtime_checkable
class DecodingSource(Source, Protocol):
    """A source that can leave the conversion of a frame to the reader, which skips frames."""

    def read_decoded(self) -> CapturedFrame | DecodedFrame | None:
        """Read as `read` does, without the conversion where that takes long."""
        ...
