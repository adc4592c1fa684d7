"""The identities of purged rows, kept as ranges: the audit stays exact and a replay stays a duplicate."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, Engine, bindparam, delete, insert, select

from consumers.database.engine import Prepared
from consumers.database.tables import archived
from consumers.reading.batch import FrameKey
from schemas.limits import CAMERAS_AT_HAND
from schemas.ranges import RangeSet


class Kind(StrEnum):
    """Of which rows the identities are."""

    FRAME = "frame"
    DEAD_LETTER = "dead_letter"


def load(connection: Connection, kind: Kind, camera: str, boot: int) -> RangeSet:
    """The archived sequence numbers of one boot."""
    rows = connection.execute(
        select(archived.c.first, archived.c.last)
        .where(archived.c.kind == kind.value, archived.c.camera == camera, archived.c.boot == boot)
        .order_by(archived.c.first)
    )
    return RangeSet((first, last) for first, last in rows)


_NONE: Final = RangeSet()


class Archive:
    """The archived identities, those of the boots in use at hand. For the database thread only."""

    def __init__(self, engine: Engine) -> None:
        mine = (archived.c.kind == bindparam("of_kind"), archived.c.camera == bindparam("of"))
        query = select(archived.c.first, archived.c.last).where(*mine, archived.c.boot == bindparam("in_boot"))
        self._ranges = Prepared(engine, query.order_by(archived.c.first))
        self._frames: OrderedDict[tuple[str, int], RangeSet] = OrderedDict()
        self._has_frames: bool | None = None
        """Whether any frame was purged yet, once that was looked up: before that there is nothing to look for."""

    def frames(self, connection: Connection, camera: str, boot: int) -> RangeSet:
        """The purged frames of one boot."""
        if self._has_frames is None:
            any_frame = select(archived.c.boot).where(archived.c.kind == Kind.FRAME.value).limit(1)
            self._has_frames = connection.execute(any_frame).first() is not None
        if not self._has_frames:
            return _NONE
        key = (camera, boot)
        found = self._frames.get(key)
        if found is None:
            rows = self._ranges.run(connection, of_kind=Kind.FRAME.value, of=camera, in_boot=boot).fetchall()
            found = self._frames[key] = RangeSet(rows)
            if len(self._frames) > CAMERAS_AT_HAND:
                self._frames.popitem(last=False)
        else:
            self._frames.move_to_end(key)
        return found

    def add(self, connection: Connection, kind: Kind, identities: Iterable[FrameKey]) -> None:
        """Archive the identities of rows that this transaction purges."""
        boots: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        for camera, boot, seq in identities:
            boots[camera, boot].append(seq)
        for (camera, boot), numbers in boots.items():
            self._has_frames = True
            # Not from the cache, and out of it: the transaction may still fail.
            ranges = load(connection, kind, camera, boot)
            self._frames.pop((camera, boot), None)
            for number in sorted(numbers):
                ranges.add(number)
            connection.execute(
                delete(archived).where(
                    archived.c.kind == kind.value, archived.c.camera == camera, archived.c.boot == boot
                )
            )
            rows = [
                {"kind": kind.value, "camera": camera, "boot": boot, "first": first, "last": last}
                for first, last in ranges.ranges()
            ]
            connection.execute(insert(archived), rows)

    def forget(self) -> None:
        """Read everything from the database again: another recorder may have written."""
        self._frames.clear()
        self._has_frames = None
