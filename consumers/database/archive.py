"""The identities of purged rows as ranges. With them the audit stays exact and a replay stays a duplicate."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, Engine, bindparam, delete, select, tuple_

from consumers.database.engine import PreparedStatement, insert_or_replace
from consumers.database.tables import archived, frames, tallies
from consumers.database.tallies import PURGED_FRAMES
from consumers.records.batch import FrameKey
from schemas.batched import batched
from schemas.limits import MAX_CAMERAS
from schemas.ranges import RangeSet


class RowKind(StrEnum):
    """The kind of rows that the identities belong to."""

    FRAME = "frame"
    DEAD_LETTER = "dead_letter"


def load(connection: Connection, kind: RowKind, camera: str, boot: int) -> RangeSet:
    """Return the archived sequence numbers of one boot."""
    rows = connection.execute(
        select(archived.c.first, archived.c.last)
        .where(archived.c.kind == kind.value, archived.c.camera == camera, archived.c.boot == boot)
        .order_by(archived.c.first)
    )
    return RangeSet((first, last) for first, last in rows)


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


_NONE: Final = RangeSet()
_BOOTS_AT_ONCE: Final = 400


class Archive:
    """The archived identities, with a cache of the boots in use. For the database thread only."""

    def __init__(self, engine: Engine) -> None:
        mine = (archived.c.kind == bindparam("of_kind"), archived.c.camera == bindparam("of"))
        query = select(archived.c.first, archived.c.last).where(*mine, archived.c.boot == bindparam("in_boot"))
        self._ranges = PreparedStatement(engine, query.order_by(archived.c.first))
        self._put = PreparedStatement(engine, insert_or_replace(engine, archived))
        key = [column == bindparam(column.name) for column in archived.primary_key.columns]
        self._remove = PreparedStatement(engine, delete(archived).where(*key))
        self._purged = PreparedStatement(engine, select(tallies.c.value).where(tallies.c.name == bindparam("of")))
        self._purged_before = -1
        self._frames: OrderedDict[tuple[str, int], RangeSet] = OrderedDict()
        self._has_frames: bool | None = None
        """Whether any frame was ever purged; None until the first query. Before the first purge no query is needed."""

    def frames(self, connection: Connection, camera: str, boot: int) -> RangeSet:
        """Return the purged frames of one boot."""
        if self._has_frames is None:
            any_frame = select(archived.c.boot).where(archived.c.kind == RowKind.FRAME.value).limit(1)
            self._has_frames = connection.execute(any_frame).first() is not None
        if not self._has_frames:
            return _NONE
        key = (camera, boot)
        found = self._frames.get(key)
        if found is None:
            rows = self._ranges.run(connection, of_kind=RowKind.FRAME.value, of=camera, in_boot=boot).fetchall()
            found = self._frames[key] = RangeSet(rows)
            if len(self._frames) > MAX_CAMERAS:
                self._frames.popitem(last=False)
        else:
            self._frames.move_to_end(key)
        return found

    def add(self, connection: Connection, kind: RowKind, identities: Iterable[FrameKey]) -> None:
        """Archive the identities of rows that this transaction purges. Write only the changed ranges of each boot."""
        boots: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        for camera, boot, seq in identities:
            boots[camera, boot].append(seq)
        if not boots:
            return
        self._has_frames = True
        gone, changed = [], []
        for place, before in _known(connection, kind, sorted(boots)):
            # Bypass and clear the cache: the transaction may still fail.
            self._frames.pop(place, None)
            left, new = grown(before, sorted(boots[place]))
            mine = {"kind": kind.value, "camera": place[0], "boot": place[1]}
            gone += [mine | {"first": first} for first in left]
            changed += [mine | {"first": first, "last": last} for first, last in new]
        if gone:
            self._remove.run_each(connection, gone)
        if changed:
            self._put.run_each(connection, changed)

    def follow(self, connection: Connection) -> None:
        """Detect that another recorder on the same database has purged rows."""
        row = self._purged.run(connection, of=PURGED_FRAMES).fetchone()
        purged = row[0] if row is not None else 0
        if purged != self._purged_before:
            self.forget()
            self._purged_before = purged

    def forget(self) -> None:
        """Clear the cache: another recorder may have written."""
        self._frames.clear()
        self._has_frames = None


def _known(
    connection: Connection, kind: RowKind, places: Sequence[tuple[str, int]]
) -> Iterator[tuple[tuple[str, int], dict[int, int]]]:
    """Yield the archived ranges of each of these boots, by their first numbers."""
    columns = (archived.c.camera, archived.c.boot, archived.c.first, archived.c.last)
    for some in batched(places, _BOOTS_AT_ONCE):
        found: dict[tuple[str, int], dict[int, int]] = {place: {} for place in some}
        mine = (archived.c.kind == kind.value, tuple_(archived.c.camera, archived.c.boot).in_(some))
        for camera, boot, first, last in connection.execute(select(*columns).where(*mine)):
            found[camera, boot][first] = last
        yield from found.items()
