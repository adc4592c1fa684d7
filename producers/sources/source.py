"""The protocol of a camera source."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.messages.frame import Truth
from schemas.pixels.planes import Planes


class Captured(NamedTuple):
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


class Source(Protocol):
    """The source of one camera's pictures, read by one thread at a time."""

    kind: str
    live: bool
    """It cannot wait: its unread pictures are lost. A source that is not live gives every picture."""
    blocking: bool
    """A read may take long enough that an event loop should leave it to a thread."""

    on_demand: bool
    """Its pictures depend on the time of the read: it is read when a frame is due and never ahead."""

    def seek(self, position: int) -> None:
        """Make the next read return the picture of this position; a live source ignores it."""
        ...

    def read(self) -> Captured | None:
        """The next picture, or None at the end.

        Raises `SourceHungError` when a live source gave none for its time, `SourceError` when it cannot be read.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections; waits for a read in another thread."""
        ...
