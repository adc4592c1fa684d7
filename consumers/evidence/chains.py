"""The table `evidence`: chains by their boots, locked and written by a transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeVar

import structlog
from sqlalchemy import Connection, Engine, bindparam, select

from consumers.database.arrays import UnnestStatement
from consumers.database.engine import PreparedStatement, Row, insert_or_replace
from consumers.database.tables import evidence
from consumers.evidence.chain import Chain
from consumers.records.batch import BootKey
from schemas.errors import StateError
from schemas.evidence.stored import pack_probes, pack_tracks, unpack_probes, unpack_tracks

_COLUMNS: Final = (evidence.c.following, evidence.c.waiting, evidence.c.track)
_ALL: Final = """
SELECT camera, boot, following, waiting, track FROM evidence
WHERE (camera, boot) IN (SELECT camera, boot FROM {rows}) ORDER BY camera, boot FOR UPDATE"""
_PUT: Final = """
INSERT INTO evidence (camera, boot, partition, following, waiting, track, updated_ms) SELECT * FROM {rows}
ON CONFLICT (camera, boot) DO UPDATE SET partition = excluded.partition, following = excluded.following,
  waiting = excluded.waiting, track = excluded.track, updated_ms = excluded.updated_ms"""

log = structlog.get_logger()

T = TypeVar("T")


class Chains:
    """Reads and writes the chains. For the database thread only."""

    def __init__(self, engine: Engine) -> None:
        self._put_each = PreparedStatement(engine, insert_or_replace(engine, evidence))
        self._names = [column.name for column in evidence.columns]
        of_boot = (evidence.c.camera == bindparam("of"), evidence.c.boot == bindparam("in_boot"))
        self._one = PreparedStatement(engine, select(*_COLUMNS).where(*of_boot))
        self._at_once = engine.dialect.name == "postgresql"
        # If cameras moved to another partition, the earlier partition may not be read to its end yet.
        self._all = UnnestStatement(_ALL, (evidence.c.camera, evidence.c.boot))
        self._put = UnnestStatement(_PUT, list(evidence.columns))

    def of(self, connection: Connection, places: Collection[BootKey]) -> dict[BootKey, Chain]:
        """Return the chains of these boots and lock their rows until the transaction ends.

        All recorders lock in the same order, so no deadlock can occur.
        """
        found: dict[BootKey, Chain] = {place: Chain() for place in sorted(places)}
        if not found:
            return found
        if self._at_once:
            for camera, boot, *row in self._all.run(connection, list(found)).fetchall():
                found[camera, boot] = _chain((camera, boot), row)
            return found
        for place in found:
            one = self._one.run(connection, of=place[0], in_boot=place[1]).fetchone()
            if one is not None:
                found[place] = _chain(place, one)
        return found

    def put(
        self, connection: Connection, chains: Mapping[BootKey, Chain], partitions: Mapping[BootKey, int], now_ms: int
    ) -> None:
        """Write these chains, at least one, each with the partition of its boot."""
        rows = [
            (
                *boot, partitions[boot], chain.following,
                pack_probes(chain.waiting), pack_tracks(chain.tracks), now_ms,
            )
            for boot, chain in chains.items()
        ]  # fmt: skip
        if self._at_once:
            self._put.run(connection, rows)
        else:
            self._put_each.run_all(connection, self._names, rows)


def _chain(place: BootKey, row: Row) -> Chain:
    """Return the chain in a row. A damaged part of it begins again after the frames that the rule has read."""
    following, waiting, track = row
    return Chain(following, _part(place, unpack_probes, waiting), _part(place, unpack_tracks, track))


def _part(place: BootKey, unpack: Callable[[bytes], T], data: bytes) -> T:
    try:
        return unpack(data)
    except StateError as error:
        log.error("evidence_damaged", camera=place[0], boot=place[1], error=str(error))
        return unpack(b"")
