"""Helpers of the drill `upgrade`."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, insert, inspect, select

from benchmarks.reliability.taken_back import VERSION, take_back
from consumers.database.engine import open_engine
from consumers.database.migrations import prepare_tables, read_version, upgrade_database
from consumers.database.tables import SCHEMA_VERSION, evidence, frames, sighting_rules
from schemas.evidence.alarms import Tracks
from schemas.evidence.stored import pack_probes, pack_tracks, unpack_probes, unpack_tracks
from schemas.evidence.track import Past, Probe, Track


def test_a_database_taken_back_is_upgraded_with_its_evidence(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'records.sqlite'}"
    probes = tuple(Probe(seq, 0.25, 0.5, True, 3) for seq in (12, 13))
    track = Track((Past(1.5, False),), probes[:1], 2.5, 11, -1, 3, 4)
    stored = {"camera": "a/b", "boot": 1, "following": 14, "waiting": pack_probes(probes)}
    stored |= {"track": pack_tracks(Tracks(track)), "updated_ms": 1, "partition": 0}
    engine = open_engine(url, writes=True)
    with engine.begin() as connection:
        prepare_tables(connection)
        connection.execute(insert(evidence).values(stored))
        tables = _tables(connection)
    assert take_back(url) == VERSION
    with engine.begin() as connection:
        assert read_version(connection) == VERSION
        assert "agreement" not in _tables(connection)[frames.name]
        assert sighting_rules.name not in _tables(connection)
    assert take_back(url) == VERSION  # an earlier form stays as it is
    upgrade_database(url)
    with engine.begin() as connection:
        row = connection.execute(select(evidence)).one()
        assert read_version(connection) == SCHEMA_VERSION
        assert _tables(connection) == tables
    assert unpack_probes(row.waiting) == probes
    assert unpack_tracks(row.track) == Tracks(track)
    engine.dispose()


def _tables(connection: Connection) -> dict[str, set[str]]:
    """Return the columns and indices of each table."""
    found = inspect(connection)
    return {
        name: {str(each["name"]) for each in (*found.get_columns(name), *found.get_indexes(name))}
        for name in found.get_table_names()
    }
