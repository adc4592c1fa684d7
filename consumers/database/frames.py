"""The table `frames` for the recorder: it records each new frame once and purges the oldest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from sqlalchemy import Connection

from consumers.records.batch import BootKey, FrameKey
from consumers.records.rows import FrameRow


class Excess(NamedTuple):
    """The frames to purge: the union of three limits; empty if nothing exceeds them."""

    before_ms: int
    """Purge frames recorded before this Unix time in milliseconds."""
    rows: int
    """Number of the oldest frames to purge; none if 0 or less."""
    bytes: float
    """Bytes to free, oldest frames first; none if 0 or less."""

    @property
    def too_many(self) -> bool:
        """Whether the oldest frames must go, whatever their age."""
        return self.rows > 0 or self.bytes > 0


class Frames(Protocol):
    """The table `frames`, implemented for each kind of database. All methods are for the database thread."""

    def make_room(self, at_ms: int) -> None:
        """Prepare for frames recorded at that time, before their transaction."""

    def forget(self) -> None:
        """Clear the cache: a transaction failed, or another recorder may have written."""

    def record(
        self, connection: Connection, rows: Mapping[FrameKey, FrameRow], repeated: Counter[BootKey], at_ms: int
    ) -> list[FrameRow]:
        """Insert the new ones among `rows` (at least one) and update the counts of all boots. Return the new rows.

        `repeated` counts the duplicates of these boots within the batch.
        """

    def count(self, connection: Connection, new: Sequence[FrameRow]) -> None:
        """Count the frames recorded in the transaction. This is its last step: all recorders update the same rows."""

    def complete(self, connection: Connection, stretches: Mapping[BootKey, tuple[int, int]]) -> set[BootKey]:
        """Return the boots with every frame recorded in their range of sequence numbers, both ends included."""

    def drop(self, connection: Connection, excess: Excess) -> int:
        """Drop a whole partition that only holds excess frames, in its own transaction. Return the number of frames."""

    def purge(self, connection: Connection, excess: Excess, at_most: int) -> int:
        """Purge at most `at_most` of the oldest frames. Return their number."""
