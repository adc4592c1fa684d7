"""The newest pictures of each camera, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from consumers.cameras.camera import follows
from consumers.console.data.sentences import unusual
from consumers.records.rows import FrameRow, statistic_name
from schemas.limits import BLOCK_PIXELS
from schemas.pointillist_pb2 import CHECKED, SHED

REBUILT: Final = ""
AS_SENT: Final = "as-sent"
WHOLE: Final = "whole"


@dataclass(frozen=True, slots=True)
class CameraPicture:
    """One picture with the verdict on its frame."""

    kind: str
    row: FrameRow
    jpeg: bytes = field(repr=False, compare=False)

    @property
    def url(self) -> str:
        """Unique address of the picture, so that browsers can cache it."""
        row = self.row
        kind = f"/{self.kind}" if self.kind else ""
        return f"/picture/{row.camera}{kind}.jpg?{row.boot:x}-{row.seq}"

    @property
    def dropped(self) -> float:
        """Fraction of the pixels that was not sent."""
        return 0.0 if self.row.whole else self.row.dropped_per_block / BLOCK_PIXELS

    @property
    def entropy_bits(self) -> float | None:
        """STRIP's entropy in bits; None if STRIP has not checked the frame."""
        return self.row.entropy_bits if self.row.strip == CHECKED else None

    @property
    def unusual(self) -> str:
        """The frame's p-value in words; empty if its bundle has none."""
        row = self.row
        if not row.p_value_threshold:
            return ""
        return unusual(row.p_value, row.p_value_threshold, statistic_name(row.statistic), ranked="most of all")

    @property
    def shed(self) -> bool:
        """Whether STRIP skipped the frame for lack of time."""
        return self.row.strip == SHED

    def document(self) -> dict[str, Any]:
        """Return the picture's address and its frame, as the API shows them."""
        return {
            "url": self.url,
            "captured_ms": self.row.captured_ms,
            "dropped": self.dropped,
            "frame_bytes": self.row.frame_bytes,
            "entropy_bits": self.entropy_bits,
        }


class PictureVersions(NamedTuple):
    """A camera's last picture in three versions, each None if it is not in memory."""

    as_sent: CameraPicture | None
    """The frame with holes: dropped pixels are black."""
    rebuilt: CameraPicture | None
    whole: CameraPicture | None
    """The frame of a probe, sent without holes."""


class Pictures:
    """The newest picture of one kind of each camera.

    Above `most_bytes`, the least recently received ones are dropped.
    """

    def __init__(self, kind: str, most_bytes: int) -> None:
        self._kind = kind
        self._most_bytes = most_bytes
        self._held: OrderedDict[str, CameraPicture] = OrderedDict()
        self._bytes = 0

    def get(self, name: str) -> CameraPicture | None:
        """Return a camera's picture; None if it is not in memory."""
        return self._held.get(name)

    def keep(self, row: FrameRow, jpeg: bytes) -> bool:
        """Store a frame's picture. Return False if a later frame's picture is already stored."""
        held = self._held.get(row.camera)
        if held is not None and not follows(row.boot, row.seq, held.row.boot, held.row.seq):
            return False
        self._held[row.camera] = CameraPicture(self._kind, row, jpeg)
        self._held.move_to_end(row.camera)
        self._bytes += len(jpeg) - (len(held.jpeg) if held else 0)
        while self._held and self._bytes > self._most_bytes:
            _, dropped = self._held.popitem(last=False)
            self._bytes -= len(dropped.jpeg)
        return True

    def drop(self, name: str) -> None:
        """Drop a camera's picture."""
        held = self._held.pop(name, None)
        if held is not None:
            self._bytes -= len(held.jpeg)
