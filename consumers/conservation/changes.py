"""Database changes since a given time, which a live audit reads instead of all rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Engine, func, select, tuple_

from consumers.database.tables import boots, dead_letters, frames, ledgers, offsets, summed_ledgers
from consumers.database.tallies import PURGED_FOREIGN, tally
from consumers.records.batch import BootKey
from consumers.records.rows import LedgerRow, SummedRow
from schemas.batched import batched

_BOOTS_AT_ONCE = 400


class Changes(NamedTuple):
    """The changes, read in one snapshot of the database."""

    offsets: dict[tuple[str, int], int]
    """Next offset of the recorders, by topic and partition."""
    ledgers: list[LedgerRow]
    recorded: dict[BootKey, list[int]]
    """Sequence numbers, some of which the reader may have from an earlier call."""
    dead_lettered: dict[BootKey, list[int]]
    counted: dict[BootKey, tuple[int, int]]
    """Recorded frames, purged ones included, and duplicates of the boots above."""
    foreign: int
    summed: dict[str, SummedRow]
    """Sums over removed ledgers, by camera."""
    kept: dict[str, set[int]]
    """Boots with a ledger row, for each camera whose sums have changed."""


def changes(engine: Engine, since_ms: int, known: Mapping[str, SummedRow]) -> Changes:
    """Return the changes recorded at `since_ms` (Unix time, by the recorders' clocks) or later.

    With `since_ms` 0, the result holds no frames but everything else. `known` are the sums as last read.

    Rows that are committed during this call appear in the next call at the latest. Purged rows do not appear.
    """
    with engine.begin() as connection:
        held = connection.execute(select(offsets.c.topic, offsets.c.partition, offsets.c.next))
        positions = {(topic, partition): following for topic, partition, following in held}
        changed = [LedgerRow(*row) for row in connection.execute(select(ledgers).where(ledgers.c.taken_ms >= since_ms))]
        recorded: defaultdict[BootKey, list[int]] = defaultdict(list)
        refused: defaultdict[BootKey, list[int]] = defaultdict(list)
        if since_ms:
            new = select(frames.c.camera, frames.c.boot, frames.c.seq).where(frames.c.recorded_ms >= since_ms)
            for camera, boot, seq in connection.execute(new):
                recorded[camera, boot].append(seq)
            letters = select(dead_letters.c.camera, dead_letters.c.boot, dead_letters.c.seq)
            for camera, boot, seq in connection.execute(
                letters.where(dead_letters.c.verified, dead_letters.c.recorded_ms >= since_ms)
            ):
                refused[camera, boot].append(seq)
        touched = {*recorded, *refused, *((row.camera, row.boot) for row in changed)}
        counted: dict[BootKey, tuple[int, int]] = {}
        for some in batched(sorted(touched), _BOOTS_AT_ONCE):
            query = select(boots).where(tuple_(boots.c.camera, boots.c.boot).in_(some))
            counted |= {(row.camera, row.boot): (row.frames, row.duplicates) for row in connection.execute(query)}
        strange = select(func.count()).select_from(dead_letters).where(~dead_letters.c.verified)
        foreign = (connection.scalar(strange) or 0) + tally(connection, PURGED_FOREIGN)
        summed = {row.camera: SummedRow(*row) for row in connection.execute(select(summed_ledgers))}
        kept = {}
        for camera in [camera for camera, row in summed.items() if known.get(camera) != row]:
            kept[camera] = set(connection.scalars(select(ledgers.c.boot).where(ledgers.c.camera == camera)))
        return Changes(positions, changed, dict(recorded), dict(refused), counted, foreign, summed, kept)
