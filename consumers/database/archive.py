"""The identities of purged rows, kept as ranges: the audit stays exact and a replay stays a duplicate."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from enum import StrEnum

from sqlalchemy import Connection, delete, insert, select

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


class Archive:
    """The archived identities, those of the boots in use at hand. For the database thread only."""

    def __init__(self) -> None:
        self._frames: OrderedDict[tuple[str, int], RangeSet] = OrderedDict()

    def frames(self, connection: Connection, camera: str, boot: int) -> RangeSet:
        """The purged frames of one boot."""
        key = (camera, boot)
        found = self._frames.get(key)
        if found is None:
            found = self._frames[key] = load(connection, Kind.FRAME, camera, boot)
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
