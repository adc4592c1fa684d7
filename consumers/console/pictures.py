"""The cameras' last pictures: the newest of each, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from consumers.cameras.camera import follows
from consumers.reading.rows import FrameRow
from schemas.limits import BLOCK_PIXELS
from schemas.pointillist_pb2 import CHECKED, SHED

REBUILT: Final = ""
AS_SENT: Final = "as-sent"
WHOLE: Final = "whole"


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture, and what the verdict says of its frame."""

    kind: str
    row: FrameRow
    jpeg: bytes = field(repr=False, compare=False)

    @property
    def url(self) -> str:
        """Its own, so that no browser asks twice."""
        row = self.row
        kind = f"/{self.kind}" if self.kind else ""
        return f"/picture/{row.camera}{kind}.jpg?{row.boot:x}-{row.seq}"

    @property
    def dropped(self) -> float:
        """Share of the pixels that was not sent."""
        return 0.0 if self.row.whole else self.row.dropped_per_block / BLOCK_PIXELS

    @property
    def entropy_bits(self) -> float | None:
        """STRIP's; None when it has not checked the frame."""
        return self.row.entropy_bits if self.row.strip == CHECKED else None

    @property
    def shed(self) -> bool:
        """Whether STRIP had no room for it."""
        return self.row.strip == SHED

    def told(self) -> dict[str, Any]:
        """Where it is and of which frame, as the API gives it."""
        return {
            "url": self.url,
            "captured_ms": self.row.captured_ms,
            "dropped": self.dropped,
            "frame_bytes": self.row.frame_bytes,
            "entropy_bits": self.entropy_bits,
        }


class Ways(NamedTuple):
    """A camera's last picture three ways, each None where none is kept."""

    as_sent: Shown | None
    """With holes, black where pixels were dropped."""
    rebuilt: Shown | None
    whole: Shown | None
    """Of a probe, sent without holes."""


class Pictures:
    """The newest picture of one kind of each camera; beyond `most_bytes`, those that came longest ago are given up."""

    def __init__(self, kind: str, most_bytes: int) -> None:
        self._kind = kind
        self._most_bytes = most_bytes
        self._held: OrderedDict[str, Shown] = OrderedDict()
        self._bytes = 0

    def get(self, name: str) -> Shown | None:
        """A camera's, while it is kept."""
        return self._held.get(name)

    def keep(self, row: FrameRow, jpeg: bytes) -> bool:
        """Keep a frame's picture; False where that of a later frame is held."""
        held = self._held.get(row.camera)
        if held is not None and not follows(row.boot, row.seq, held.row.boot, held.row.seq):
            return False
        self._held[row.camera] = Shown(self._kind, row, jpeg)
        self._held.move_to_end(row.camera)
        self._bytes += len(jpeg) - (len(held.jpeg) if held else 0)
        while self._held and self._bytes > self._most_bytes:
            _, dropped = self._held.popitem(last=False)
            self._bytes -= len(dropped.jpeg)
        return True

    def drop(self, name: str) -> None:
        """Keep none of this camera."""
        held = self._held.pop(name, None)
        if held is not None:
            self._bytes -= len(held.jpeg)
