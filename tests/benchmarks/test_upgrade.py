"""The downgrade of a database, which the drill `upgrade` begins with."""

from __future__ import annotations

import json
from pathlib import Path

from sqlalchemy import Connection, insert, inspect, select

from benchmarks.reliability.taken_back import VERSION, take_back
from consumers.cameras.snapshots import saved_camera
from consumers.database.engine import open_engine
from consumers.database.migrations import prepare_tables, read_version, upgrade_database
from consumers.database.tables import SCHEMA_VERSION, camera_snapshots, evidence, frames, sighting_rules
from consumers.records.rows import FrameRow
from schemas.evidence.alarms import Tracks
from schemas.evidence.stored import pack_probes, pack_tracks, unpack_probes, unpack_tracks
from schemas.evidence.track import PastFrame, Probe, Track


def test_a_downgraded_database_is_upgraded_with_its_evidence(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'records.sqlite'}"
    probes = tuple(Probe(seq, 0.25, 0.5, True, 3) for seq in (12, 13))
    track = Track((PastFrame(1.5, False),), probes[:1], 2.5, 11, -1, 3, 4)
    stored = {"camera": "a/b", "boot": 1, "following": 14, "waiting": pack_probes(probes)}
    stored |= {"track": pack_tracks(Tracks(track)), "updated_ms": 1, "partition": 0}
    row = FrameRow("a/b", 1, 13, 0, 0, 1, 3, "stop", 0.5, "m", "p", 0, 0, 0, 0, 0, True, 0, 0, 0, 1, 0.25, 0.5, True,
                   "", "", 5, True, "0 0 16 16 0.03", 0.001, 0.01, 2)  # fmt: skip
    engine = open_engine(url, writes=True)
    with engine.begin() as connection:
        prepare_tables(connection)
        connection.execute(insert(evidence).values(stored))
        state = json.dumps([1, row, None, "1", 1, 0.5, True, 40, 0.7])
        connection.execute(insert(camera_snapshots).values(camera="a/b", heard_ms=1, state=state))
        tables = _tables(connection)
    assert take_back(url) == VERSION
    with engine.begin() as connection:
        assert read_version(connection) == VERSION
        assert "p_value" not in _tables(connection)[frames.name]
        assert sighting_rules.name not in _tables(connection)
        assert len(json.loads(connection.scalar(select(camera_snapshots.c.state)) or "")) == 7
    assert take_back(url) == VERSION  # a database of the earlier version is not changed
    upgrade_database(url)
    with engine.begin() as connection:
        kept = connection.execute(select(evidence)).one()
        assert read_version(connection) == SCHEMA_VERSION
        assert _tables(connection) == tables
        state = connection.scalar(select(camera_snapshots.c.state)) or ""
    assert unpack_probes(kept.waiting) == probes
    assert unpack_tracks(kept.track) == Tracks(track)
    camera = saved_camera("a/b", state)
    assert camera is not None
    assert camera.last == row._replace(windows="", p_value=0.0, p_value_threshold=0.0, statistic=0)
    engine.dispose()


def _tables(connection: Connection) -> dict[str, set[str]]:
    """Return the columns and indices of each table."""
    found = inspect(connection)
    return {
        name: {str(each["name"]) for each in (*found.get_columns(name), *found.get_indexes(name))}
        for name in found.get_table_names()
    }
