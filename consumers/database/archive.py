"""The identities of purged rows as ranges. With them the audit stays exact and a replay stays a duplicate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Final

from sqlalchemy import ColumnElement, Connection, Engine, FromClause, Select, bindparam, delete, func, select

from consumers.database.engine import PreparedStatement, insert_or_replace
from consumers.database.tables import archived, frames
from consumers.records.batch import BootKey, FrameKey
from schemas.identity import SEQ_LIMIT
from schemas.ranges import RangeSet


class RowKind(StrEnum):
    """The kind of rows that the identities belong to."""

    FRAME = "frame"
    DEAD_LETTER = "dead_letter"
    LEDGER = "ledger"
    """A settled ledger that was summed: its boot has the range from 0 to 0."""


def load(
    connection: Connection, kind: RowKind, camera: str, boot: int, since: int = 0, until: int = SEQ_LIMIT
) -> RangeSet:
    """Return the archived ranges of one boot that hold a sequence number from `since` to `until`."""
    rows = connection.execute(_around(kind.value, camera, boot, since, until))
    return RangeSet((first, last) for first, last in rows)


def _around(kind: object, camera: object, boot: object, since: object, until: object) -> Select[int, int]:
    """Return the query for the ranges from the last that begins at or before `since` to the last at or before `until`.

    It searches the index: a boot may have many other ranges.
    """

    def mine(table: FromClause) -> tuple[ColumnElement[bool], ...]:
        return table.c.kind == kind, table.c.camera == camera, table.c.boot == boot

    other = archived.alias()
    before = select(func.max(other.c.first)).where(*mine(other), other.c.first <= since).scalar_subquery()
    is_near = (archived.c.first <= until, archived.c.first >= func.coalesce(before, since))
    return select(archived.c.first, archived.c.last).where(*mine(archived), *is_near).order_by(archived.c.first)


def keeps_all(connection: Connection, kind: RowKind) -> bool:
    """Return whether the ranges hold the identities of all rows, not of purged ones alone."""
    return kind is RowKind.FRAME and connection.dialect.name == "postgresql"


def is_recorded(connection: Connection, key: FrameKey) -> bool:
    """Return whether the frame is in the database, or was purged from it."""
    camera, boot, seq = key
    if not keeps_all(connection, RowKind.FRAME):
        mine = (frames.c.camera == camera, frames.c.boot == boot, frames.c.seq == seq)
        if connection.scalar(select(frames.c.seq).where(*mine)) is not None:
            return True
    mine = (archived.c.kind == RowKind.FRAME.value, archived.c.camera == camera, archived.c.boot == boot)
    before = select(archived.c.last).where(*mine, archived.c.first <= seq).order_by(archived.c.first.desc()).limit(1)
    last = connection.scalar(before)
    return last is not None and last >= seq


def grown(before: Mapping[int, int], numbers: Iterable[int]) -> tuple[Collection[int], Collection[tuple[int, int]]]:
    """Return the changes that `numbers` make to ranges: the first numbers of removed ranges, and the new ranges.

    `before` holds the last number of each range by its first.
    """
    ranges = RangeSet(before.items())
    for number in numbers:
        ranges.add(number)
    after = dict(ranges.ranges())
    return before.keys() - after.keys(), after.items() - before.items()


_NEAR: Final = 64
"""Maximum distance of neighbours in a group of numbers. Between two of them are at most half as many ranges."""


def stretches(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return the first and last of each group of `numbers` that are near each other.

    A query for each group reads few ranges, also if the numbers of one boot are far apart.
    """
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and number - found[-1][1] <= _NEAR:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


class Archive:
    """The archived identities. For the database thread only."""

    def __init__(self, engine: Engine) -> None:
        names: list[object] = [bindparam(name) for name in ("of_kind", "of", "in_boot", "since", "until")]
        self._ranges = PreparedStatement(engine, _around(*names))
        self._put = PreparedStatement(engine, insert_or_replace(engine, archived))
        key = [column == bindparam(column.name) for column in archived.primary_key.columns]
        self._remove = PreparedStatement(engine, delete(archived).where(*key))
        self._has_frames: bool | None = None
        """Whether any frame was ever purged; None until the first query. Before the first purge no query is needed."""

    def frames(self, connection: Connection, keys: Iterable[FrameKey]) -> dict[BootKey, RangeSet]:
        """Return the purged frames among `keys`, and others near them, by boot. Boots without any are left out."""
        if self._has_frames is None:
            any_frame = select(archived.c.boot).where(archived.c.kind == RowKind.FRAME.value).limit(1)
            self._has_frames = connection.execute(any_frame).first() is not None
        if not self._has_frames:
            return {}
        found = {}
        for boot, numbers in _by_boot(keys).items():
            if near := self._near(connection, RowKind.FRAME, boot, numbers):
                found[boot] = RangeSet(near.items())
        return found

    def add(self, connection: Connection, kind: RowKind, identities: Iterable[FrameKey]) -> None:
        """Archive the identities of rows that this transaction purges. Write only the changed ranges of each boot."""
        boots = _by_boot(identities)
        if not boots:
            return
        self._has_frames = True
        gone, changed = [], []
        for (camera, boot), numbers in sorted(boots.items()):
            left, new = grown(self._near(connection, kind, (camera, boot), numbers), sorted(numbers))
            mine = {"kind": kind.value, "camera": camera, "boot": boot}
            gone += [mine | {"first": first} for first in left]
            changed += [mine | {"first": first, "last": last} for first, last in new]
        if gone:
            self._remove.run_each(connection, gone)
        if changed:
            self._put.run_each(connection, changed)

    def forget(self) -> None:
        """Forget whether any frame was purged: another recorder may have purged some."""
        self._has_frames = None

    def _near(self, connection: Connection, kind: RowKind, boot: BootKey, numbers: Iterable[int]) -> dict[int, int]:
        """Return the last number of each range that holds or touches one of `numbers`, or is near, by its first."""
        found: dict[int, int] = {}
        mine = {"of_kind": kind.value, "of": boot[0], "in_boot": boot[1]}
        for first, last in stretches(numbers):
            found |= self._ranges.run(connection, **mine, since=first, until=last + 1).fetchall()
        return found


def _by_boot(identities: Iterable[FrameKey]) -> dict[BootKey, list[int]]:
    boots: defaultdict[BootKey, list[int]] = defaultdict(list)
    for camera, boot, seq in identities:
        boots[camera, boot].append(seq)
    return boots
