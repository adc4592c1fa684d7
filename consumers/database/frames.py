"""The table `frames` as the recorder sees it: what is new is recorded once, and the oldest goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from sqlalchemy import Connection

from consumers.reading.batch import BootKey, FrameKey
from consumers.reading.rows import FrameRow


class Excess(NamedTuple):
    """What of the frames has to go, beyond none of these bounds if there is nothing."""

    before_ms: int
    """What was recorded before."""
    rows: int
    """So many of the oldest; 0 and less are none."""
    bytes: float
    """As many as take so much; 0 and less are none."""

    @property
    def too_many(self) -> bool:
        """Whether the oldest have to go, whenever they were recorded."""
        return self.rows > 0 or self.bytes > 0


class Frames(Protocol):
    """One for each kind of database. All methods are for the database thread."""

    def make_room(self, at_ms: int) -> None:
        """Before the transaction that records frames at that time."""

    def forget(self) -> None:
        """What is at hand may not be so in the database: a transaction failed, or others may have written."""

    def record(
        self, connection: Connection, rows: Mapping[FrameKey, FrameRow], repeated: Counter[BootKey], at_ms: int
    ) -> list[FrameRow]:
        """Record those of `rows`, at least one, that are new, and count all for their boots; the new ones.

        `repeated` are frames of these boots that came once more.
        """

    def count(self, connection: Connection, new: Sequence[FrameRow]) -> None:
        """Count what the transaction has recorded: its last step, since all recorders count in the same rows."""

    def complete(self, connection: Connection, stretches: Mapping[BootKey, tuple[int, int]]) -> set[BootKey]:
        """Of which boots every frame from one sequence number to another, both included, is recorded."""

    def drop(self, connection: Connection, excess: Excess) -> int:
        """Let go what goes as a whole, in a transaction of its own; how many frames."""

    def purge(self, connection: Connection, excess: Excess, at_most: int) -> int:
        """Purge so many of the oldest at most; how many."""
