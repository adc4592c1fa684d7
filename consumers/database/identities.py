"""The identities of all frames ever recorded in PostgreSQL, as ranges. They decide which frames are new.

The ranges outlive the rows of `frames`. A boot without gaps has one row, whose end moves. Three statements read and
write the affected ranges, for any number of boots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Connection

from consumers.database.archive import RowKind, grown, stretches
from consumers.database.arrays import UnnestStatement
from consumers.database.tables import archived, frames
from consumers.records.batch import BootKey
from schemas.ranges import RangeSet

_MINE: Final = f"kind = '{RowKind.FRAME.value}' AND each.camera = new.camera AND each.boot = new.boot"
_PLACE: Final = (archived.c.camera, archived.c.boot)
_RANGE: Final = (*_PLACE, archived.c.first, archived.c.last)

# The first range is the last one that begins at or before the stretch. A descending search finds it: a boot may have
# many earlier ranges.
_AROUND: Final = f"""
SELECT new.camera, new.boot, known.first, known.last FROM {{rows}} CROSS JOIN LATERAL (
  SELECT each.first, each.last FROM archived each WHERE {_MINE} AND each.first <= new.last + 1 AND each.first >=
    coalesce((SELECT max(each.first) FROM archived each WHERE {_MINE} AND each.first <= new.first), new.first)
) known"""
_REMOVE: Final = f"DELETE FROM archived each USING {{rows}} WHERE {_MINE} AND each.first = new.first"
_PUT: Final = f"""
INSERT INTO archived (kind, camera, boot, first, last) SELECT '{RowKind.FRAME.value}', * FROM {{rows}}
ON CONFLICT (kind, camera, boot, first) DO UPDATE SET last = excluded.last"""
_REACH: Final = f"""
SELECT new.camera, new.boot, known.last FROM {{rows}} CROSS JOIN LATERAL (
  SELECT each.last FROM archived each WHERE {_MINE} AND each.first <= new.seq ORDER BY each.first DESC LIMIT 1
) known"""


class Identities:
    """Reads and writes the ranges of boots whose rows the transaction has locked."""

    def __init__(self) -> None:
        self._around = UnnestStatement(_AROUND, _RANGE)
        self._remove = UnnestStatement(_REMOVE, _RANGE[:3])
        self._put = UnnestStatement(_PUT, _RANGE)
        self._reach = UnnestStatement(_REACH, (*_PLACE, frames.c.seq))

    def add(self, connection: Connection, coming: Mapping[BootKey, Sequence[int]]) -> dict[BootKey, set[int]]:
        """Add the sequence numbers in `coming`, each once, of at least one boot. Return those recorded earlier."""
        known: dict[BootKey, dict[int, int]] = {boot: {} for boot in coming}
        places = [(*boot, *each) for boot, numbers in coming.items() for each in stretches(numbers)]
        for camera, boot, first, last in self._around.run(connection, places).fetchall():
            known[camera, boot][first] = last
        repeated: dict[BootKey, set[int]] = {}
        gone, changed = [], []
        for place, before in known.items():
            numbers = coming[place]
            ranges = RangeSet(before.items())
            again = {number for number in numbers if number in ranges}
            if again:
                repeated[place] = again
            left, new = grown(before, numbers)
            gone += [(*place, first) for first in left]
            changed += [(*place, *each) for each in new]
        if gone:
            self._remove.run(connection, gone)
        if changed:
            self._put.run(connection, changed)
        return repeated

    def range_ends(self, connection: Connection, places: Mapping[BootKey, int]) -> dict[BootKey, int]:
        """Return the last number of each boot's range that holds the given number, or that ends before it."""
        rows = [(*boot, number) for boot, number in places.items()]
        return {(camera, boot): last for camera, boot, last in self._reach.run(connection, rows).fetchall()}
