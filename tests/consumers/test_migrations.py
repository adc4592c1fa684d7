"""Migrations: the recorder upgrades the database of each release and keeps all rows."""

from __future__ import annotations

import json
import shutil
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, insert, inspect, select, text

from benchmarks.harness.postgresql import PostgreSQL
from consumers.cameras.snapshots import saved_camera
from consumers.database import engine as engines
from consumers.database import migrations
from consumers.database.changes import change_recorded
from consumers.database.engine import open_engine
from consumers.database.migrations import prepare_tables, read_version, upgrade_database
from consumers.database.queries import open_records
from consumers.database.spans import DAY_MS, ensure_span, spans_held
from consumers.database.tables import (
    SCHEMA_VERSION,
    camera_snapshots,
    evidence,
    frames,
    metadata,
    offsets,
    sighting_rules,
    tallies,
    versions,
)
from consumers.database.tallies import Tallies, tally
from consumers.records.rows import FrameRow
from consumers.sightings.rules_table import read_rules
from schemas.errors import StateError
from schemas.evidence.alarms import Tracks
from schemas.evidence.stored import unpack_probes, unpack_tracks
from schemas.evidence.track import PastFrame, Probe, Track

RELEASED = sorted((Path(__file__).parent / "databases").glob("*.sql"))
"""A database of each release, with twelve frames."""


def create_released(release: Path, folder: Path) -> str:
    file = folder / "pointillist.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(release.read_text())
    return f"sqlite:///{file}"


def insert_old_evidence(connection: Connection) -> None:
    """Store one row in the form of 0.1.0: two probes wait, and a third is in the run of a track with one frame."""
    probes = b"".join(struct.pack("<Qff?I", seq, 0.25, 0.5, True, 3) for seq in (12, 13, 11))
    waiting, run = probes[:-21], probes[-21:]
    track = struct.pack("<HHdqiqq", 1, 1, 2.5, 11, -1, 3, 4) + struct.pack("<d?", 1.5, False) + run
    stored = {"following": 12, "waiting": waiting, "track": track, "updated_ms": 1, "partition": 0}
    connection.execute(evidence.insert().values(camera="a/b", boot=1, **stored))


def check_evidence(connection: Connection) -> None:
    row = connection.execute(select(evidence.c.waiting, evidence.c.track)).one()
    assert unpack_probes(row.waiting) == tuple(Probe(seq, 0.25, 0.5, True, 3) for seq in (12, 13))
    history, running = (PastFrame(1.5, False),), (Probe(11, 0.25, 0.5, True, 3),)
    assert unpack_tracks(row.track) == Tracks(Track(history, running, 2.5, 11, -1, 3, 4))


def accepted_by_0_1_0(engine: Engine) -> bool:
    """Check the version as the recorder of 0.1.0 does at its start. Return whether it accepts the database."""
    with engine.begin() as connection:
        version = tally(connection, "schema_version")
        if not version:
            Tallies(engine).add(connection, {"schema_version": 3})
        return version in (0, 3)


def differences(connection: Connection) -> list[object]:
    """Return the differences between the tables of a database and those of this release, without partitions."""

    def is_compared(name: str | None, kind: str, _: object) -> bool:
        return kind != "table" or not (name or "").startswith("frames_")

    context = MigrationContext.configure(connection, opts={"include_name": is_compared})
    return list(compare_metadata(context, metadata))


@pytest.mark.parametrize("release", RELEASED, ids=lambda file: file.stem)
def test_a_released_database_is_upgraded_with_its_rows_and_offsets(release: Path, tmp_path: Path) -> None:
    url = create_released(release, tmp_path)
    engine = open_engine(url, writes=True)
    assert accepted_by_0_1_0(engine)
    with engine.begin() as connection:
        insert_old_evidence(connection)
        prepare_tables(connection)
    assert not accepted_by_0_1_0(engine)
    with engine.begin() as connection:
        assert read_version(connection) == SCHEMA_VERSION
        assert differences(connection) == []
        check_evidence(connection)
        assert connection.execute(select(frames.c.seq).order_by(frames.c.seq)).scalars().all() == list(range(12))
        assert connection.scalar(select(offsets.c.next)) == 12
    engine.dispose()
    with open_records(url) as records:
        records.check_version()


@pytest.mark.parametrize("release", RELEASED, ids=lambda file: file.stem)
def test_a_change_of_an_old_database_fails_with_the_advice_to_start_the_recorder(release: Path, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="Start the recorder of this release"):
        change_recorded(create_released(release, tmp_path), read_rules)


def upgrade_to(connection: Connection, version: int) -> None:
    """Upgrade a database of the first version to another, as the release with that version did."""
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    with Operations.context(MigrationContext.configure(connection)):
        for each in reversed(list(script.iterate_revisions(str(version), str(migrations.FIRST)))):
            each.module.upgrade()
    for added, name in ((5, "agreement"), (7, "typicality")):
        for column in (name, f"{name}_threshold") if added <= version else ():
            # On SQLite the revisions do not add these columns, since version 8 drops them.
            connection.exec_driver_sql(f"ALTER TABLE frames ADD COLUMN {column} FLOAT NOT NULL DEFAULT 0")
    versions.create(connection)
    connection.execute(insert(versions).values(version_num=str(version)))


def test_an_upgrade_from_version_7_keeps_the_strip_track_the_waiting_probes_and_the_snapshots(tmp_path: Path) -> None:
    def probe(seq: int, *found: float) -> bytes:
        return struct.pack("<Qff?Iffff", seq, 0.25, 0.5, True, 3, *found)

    def track(total: float, run: bytes) -> bytes:
        return struct.pack("<HHdqiqq", 1, 1, total, 11, -1, 3, 4) + struct.pack("<d?", 1.5, False) + run

    row = FrameRow("a/b", 1, 13, 0, 0, 1, 3, "stop", 0.5, "m", "p", 0, 0, 0, 0, 0, True, 0, 0, 0, 1, 0.25, 0.5, True,
                   "", "", 5, True)  # fmt: skip
    older = (*row[:28], 0.75, 0.25, "0 0 16 16 0.03", 0.5, 0.002)
    engine = open_engine(create_released(RELEASED[0], tmp_path), writes=True)
    with engine.begin() as connection:
        upgrade_to(connection, 7)
        tracks = (
            track(2.5, probe(11, 0, 0, 0, 0))
            + track(3.5, probe(11, 0.1, 0.2, 0, 0))
            + track(4.5, probe(11, 0, 0, 0.1, 0.2))
        )
        waiting = probe(12, 0.9, 0.2, 0.5, 0.002) + probe(13, 0.1, 0.2, 0.5, 0.002)
        stored = {"following": 12, "waiting": waiting, "track": tracks, "updated_ms": 1, "partition": 0}
        connection.execute(evidence.insert().values(camera="a/b", boot=1, **stored))
        for width in (28, 31, 33):
            state = json.dumps([1, older[:width], None, "1", 1, 0.5, True])
            connection.execute(insert(camera_snapshots).values(camera=f"a/{width}", heard_ms=1, state=state))
    with engine.begin() as connection:
        assert read_version(connection) == 7
        prepare_tables(connection)
        assert read_version(connection) == SCHEMA_VERSION
        assert differences(connection) == []
        check_evidence(connection)
        saved = connection.execute(select(camera_snapshots.c.camera, camera_snapshots.c.state)).all()
        last = {name: camera.last for name, state in saved if (camera := saved_camera(name, state)) is not None}
    assert last == {"a/28": row, "a/31": row._replace(windows=older[30]), "a/33": row._replace(windows=older[30])}
    engine.dispose()


def test_an_upgrade_from_version_10_keeps_both_tracks_and_damaged_evidence(tmp_path: Path) -> None:
    def probe(seq: int) -> bytes:
        return struct.pack("<Qff?IffB", seq, 0.25, 0.5, True, 3, 0.125, 0.25, 2)

    def track(total: float, run: bytes) -> bytes:
        past = struct.pack("<d?", 1.5, False) + struct.pack("<d?", -2.5, True)
        return struct.pack("<HHdqiqq", 2, 1, total, 11, -1, 3, 4) + past + run

    tracks = track(2.5, probe(11)) + track(3.5, probe(10)) + struct.pack("<f", 0.5)
    stored = {1: (probe(12) + probe(13), tracks), 2: (b"", b""), 3: (b"damaged", tracks[:-20])}
    engine = open_engine(create_released(RELEASED[0], tmp_path), writes=True)
    with engine.begin() as connection:
        upgrade_to(connection, 10)
        for boot, (waiting, held) in stored.items():
            row = {"following": 12, "waiting": waiting, "track": held, "updated_ms": 1, "partition": 0}
            connection.execute(evidence.insert().values(camera="a/b", boot=boot, **row))
    with engine.begin() as connection:
        assert read_version(connection) == 10
        prepare_tables(connection)
        assert read_version(connection) == SCHEMA_VERSION
        assert set(connection.scalars(select(frames.c.scene))) == {-1}
        found = {row.boot: row for row in connection.execute(select(evidence)).all()}
        with pytest.raises(StateError):
            unpack_tracks(found[3].track)
        assert found[3].waiting == b"damaged"
    history, run = (PastFrame(1.5, False), PastFrame(-2.5, True)), Probe(11, 0.25, 0.5, True, 3, 0.125, 0.25, 2)
    strip = Track(history, (run,), 2.5, 11, -1, 3, 4, 0.5)
    combined = Track(history, (run._replace(seq=10),), 3.5, 11, -1, 3, 4)
    assert unpack_tracks(found[1].track) == Tracks(strip, combined)
    assert unpack_probes(found[1].waiting) == (run._replace(seq=12), run._replace(seq=13))
    assert (found[2].track, found[2].waiting) == (b"", b"")
    engine.dispose()


def test_an_upgrade_from_0_1_0_does_not_rewrite_the_frames(tmp_path: Path) -> None:
    """Check the size of the write-ahead log: a rewrite needs more space than the default limit of the frames leaves."""
    url, file = create_released(RELEASED[0], tmp_path), tmp_path / "pointillist.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(frames)")]
        values = ["number" if name == "seq" else f'"{name}"' for name in names]
        numbers = "WITH RECURSIVE n (number) AS (SELECT 1000 UNION ALL SELECT number + 1 FROM n LIMIT 20000)"
        connection.execute(
            f"INSERT INTO frames {numbers} SELECT {', '.join(values)} FROM (SELECT * FROM frames LIMIT 1), n"
        )
        connection.commit()
    before = file.stat().st_size
    engine = open_engine(url, writes=True)
    with engine.begin() as connection:
        prepare_tables(connection)
    assert file.with_name(f"{file.name}-wal").stat().st_size < before / 4
    engine.dispose()


@pytest.mark.parametrize("version", [5, 6, 7])
def test_an_upgrade_that_rewrites_the_frames_first_checks_the_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    url = create_released(RELEASED[0], tmp_path)
    engine = open_engine(url, writes=True)
    with engine.begin() as connection:
        upgrade_to(connection, version)
        before = inspect(connection).get_columns("frames")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**10))
    with pytest.raises(StateError, match=r"^the database: expected \d+ MiB of free disk in .*, got 0 MiB\. [^\n]+$"):
        upgrade_database(url)
    with engine.begin() as connection:
        assert read_version(connection) == version
        assert [str(each) for each in inspect(connection).get_columns("frames")] == [str(each) for each in before]
    monkeypatch.undo()
    upgrade_database(url)
    with engine.begin() as connection:
        assert read_version(connection) == SCHEMA_VERSION
        assert differences(connection) == []
        assert connection.execute(select(frames.c.seq).order_by(frames.c.seq)).scalars().all() == list(range(12))
    engine.dispose()


def test_the_recorder_of_0_1_0_rejects_a_new_database(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'new.sqlite'}", writes=True)
    with engine.begin() as connection:
        prepare_tables(connection)
    assert not accepted_by_0_1_0(engine)
    with engine.begin() as connection:
        assert read_version(connection) == SCHEMA_VERSION
    engine.dispose()


def test_the_oldest_release_is_among_the_tested_databases() -> None:
    assert RELEASED[0].stem == "0.1.0"


def test_every_version_has_one_revision_and_the_newest_matches_the_tables() -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    found = [revision.revision for revision in script.walk_revisions()]
    assert found == [str(version) for version in range(SCHEMA_VERSION, migrations.FIRST - 1, -1)]


def test_reading_an_old_database_fails_with_advice_and_changes_nothing(tmp_path: Path) -> None:
    url = create_released(RELEASED[0], tmp_path)
    before = (tmp_path / "pointillist.sqlite").read_bytes()
    with open_records(url) as records, pytest.raises(StateError, match="Start the recorder of this release"):
        records.check_version()
    assert (tmp_path / "pointillist.sqlite").read_bytes() == before


def test_up_upgrades_an_old_database_and_leaves_a_damaged_file_to_the_recorder(tmp_path: Path) -> None:
    url = create_released(RELEASED[0], tmp_path)
    upgrade_database(url)
    with open_records(url) as records:
        records.check_version()
    (tmp_path / "pointillist.sqlite").write_bytes(b"no database" * 1000)
    upgrade_database(url)
    assert (tmp_path / "pointillist.sqlite").read_bytes() == b"no database" * 1000


def test_up_reports_the_cause_of_a_failed_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = create_released(RELEASED[0], tmp_path)
    monkeypatch.setattr(engines, "BUSY_TIMEOUT_MS", 1)
    with closing(sqlite3.connect(tmp_path / "pointillist.sqlite")) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateError, match="database is locked") as raised:
            upgrade_database(url)
    assert len(str(raised.value).splitlines()) == 1


def test_a_failed_upgrade_keeps_the_old_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = create_released(RELEASED[0], tmp_path)
    engine = open_engine(url, writes=True)

    def failing(connection: Connection) -> None:
        connection.execute(versions.insert().values(version_num="x"))
        raise StateError("a full disk")

    monkeypatch.setattr(migrations, "_set_version", failing)
    with pytest.raises(StateError), engine.begin() as connection:
        prepare_tables(connection)
    monkeypatch.undo()
    with engine.begin() as connection:
        assert read_version(connection) == migrations.FIRST
        prepare_tables(connection)
        assert read_version(connection) == SCHEMA_VERSION
    engine.dispose()


@pytest.mark.brokers
def test_postgresql_is_upgraded_too(postgresql: PostgreSQL) -> None:
    engine = open_engine(postgresql.create("migrated"), writes=True)
    with engine.begin() as connection:
        # The tables of 0.1.0 store the version elsewhere, and lack these columns.
        metadata.create_all(connection)
        for day in (1, 2):
            ensure_span(connection, day * DAY_MS)
            row = FrameRow("a/b", 1, day, 0, 0, day * DAY_MS, 0, "stop", 0.5, "m", "p", 0, 0, 0, 0, 0, False, 0, 0, 0,
                           0, 0.0, 0.0, False, "", "")  # fmt: skip
            connection.execute(insert(frames).values(row._asdict()))
        assert len(spans_held(connection)) == 2
        insert_old_evidence(connection)
        for name, columns in {
            "frames": ("windows", "p_value", "p_value_threshold", "statistic", "scene"),
            "alerts": (
                *("window", "wanted", "confidence", "ended_ms", "partition"),
                *("mean_p_value", "p_value_threshold", "baseline_p_value", "statistic"),
            ),
        }.items():
            for each in columns:
                connection.exec_driver_sql(f'ALTER TABLE {name} DROP COLUMN "{each}"')
        sighting_rules.drop(connection)
        versions.drop(connection)
        connection.execute(tallies.insert().values(name="schema_version", value=3))
    with engine.begin() as connection:
        assert read_version(connection) == 3
        prepare_tables(connection)
        # The lock keeps recorders of the earlier release from changing evidence during the upgrade.
        lock = "SELECT 1 FROM pg_locks WHERE relation = 'evidence'::regclass AND mode = 'AccessExclusiveLock'"
        assert connection.scalar(text(lock)) == 1
    assert not accepted_by_0_1_0(engine)
    with engine.begin() as connection:
        assert read_version(connection) == SCHEMA_VERSION
        assert differences(connection) == []
        check_evidence(connection)
        added = frames.c["p_value", "p_value_threshold", "statistic", "windows", "scene"]
        found = connection.execute(select(frames.c.seq, *added).order_by(frames.c.seq)).all()
        assert found == [(1, 0.0, 0.0, 0, "", -1), (2, 0.0, 0.0, 0, "", -1)]
    engine.dispose()
