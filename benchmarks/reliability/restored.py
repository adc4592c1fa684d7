"""The drills `restore` and `backup`: a lost state folder, and the time of a backup of many rows; see
`benchmarks.reliability.drills`.

In `restore` the folder is deleted while all roles run, then everything is killed. Kafka's log and the spools stay, as
they do on other machines in a deployment. A second run deletes them too: then the frames since the backup are gone.
The drill compares the rows that the database held before with those at the end. Times of the recording may differ.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from benchmarks.harness.records import rows
from benchmarks.harness.system import COMMAND, Result, RunningSystem, summary
from consumers.database.engine import open_engine
from consumers.database.tables import frames, metadata, offsets
from infra.local.process import ProcessId, terminate
from infra.state_folder import Layout
from schemas.topics import KafkaTopic

OTHER_MACHINES: Final = ("kafka", "spool")
_COMPARED: Final = "camera, boot, seq, class_id, confidence, model_id, strip, entropy_bits, flagged"
_MIB: Final = 2**20


def restore(folder: Path, cameras: int = 16, fps: float = 4.0, pause_s: float = 20.0) -> Result:
    """Lose the state folder, with and without Kafka's log and the spools, and restore it."""
    kept = {"kafka_kept": OTHER_MACHINES, "all_lost": ()}
    return {name: _lost(folder / name, each, cameras, fps, pause_s) for name, each in kept.items()}


def backup(folder: Path, count: int = 10_000_000) -> Result:
    """Back up and restore a database with `count` frames."""
    layout, fresh = Layout(folder / "large"), folder / "fresh"
    layout.folder.mkdir(parents=True)
    layout.fleet_secret()
    _fill(layout, count)
    size = layout.database.stat().st_size
    made_s = _command("backup", "--state", layout.folder, "--to", folder / "to")
    shutil.rmtree(layout.folder)
    restored_s = _command("restore", "--state", fresh, "--from", folder / "to")
    ((found,),) = rows(Layout(fresh).database, "select count(*) from frames")
    return {
        "rows": count,
        "rows_restored": found,
        "database_mib": round(size / _MIB),
        "backup_s": made_s,
        "restore_s": restored_s,
        "load": os.getloadavg()[0],
    }


def _lost(state: Path, kept: tuple[str, ...], cameras: int, fps: float, pause_s: float) -> Result:
    options = ("--cameras", cameras, "--fps", fps, "--no-prometheus")
    to = state.with_name(f"{state.name}-backups")
    with RunningSystem(state, *options) as system:
        system.await_role("fleet")
        time.sleep(pause_s)
        backup_s = _command("backup", "--state", state, "--to", to)
        time.sleep(pause_s)
        processes = [ProcessId.of(entry["pid"]) for entry in system.roles().values()]
        before = _rows(Layout(state).database)
        begun = time.monotonic()
        _delete(state, kept)
        system.process.send_signal(signal.SIGKILL)
        system.process.wait()
        for process in processes:
            if process is not None:
                terminate(process, 0)
    _delete(state, kept)  # files written between the deletion and the end
    new_kafka = () if kept else ("--new-kafka",)
    restore_s = _command("restore", "--state", state, "--from", to, *new_kafka)
    held = _rows(Layout(state).database)
    with RunningSystem(state, *options, "--seconds", pause_s) as system:
        system.await_role("fleet")
        running_s = round(time.monotonic() - begun, 1)
        status, report = system.wait(240)
    after = _rows(Layout(state).database)
    return {
        "status": status,
        "backup_s": backup_s,
        "restore_s": restore_s,
        "lost_to_running_s": running_s,
        "rows_before": len(before),
        "rows_in_backup": len(held),
        "rows_missing": len(before.keys() - after.keys()),
        "rows_changed": sum(after[key] != row for key, row in before.items() if key in after),
        **summary(report, state),
    }


def _delete(state: Path, kept: tuple[str, ...]) -> None:
    for entry in state.iterdir():
        if entry.name not in kept:
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


def _rows(database: Path) -> dict[tuple[str, int, int], tuple[object, ...]]:
    """Return the frames by identity."""
    return {row[:3]: row[3:] for row in rows(database, f"select {_COMPARED} from frames")}


def _command(*arguments: object) -> float:
    begun = time.monotonic()
    done = subprocess.run([*COMMAND, *map(str, arguments)], check=False, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise RuntimeError(f"{arguments[0]}: expected status 0, got {done.returncode}: {done.stderr}")
    return round(time.monotonic() - begun, 2)


def _fill(layout: Layout, count: int) -> None:
    """Write frames of 1,000 cameras, with texts of the usual lengths."""
    engine = open_engine(layout.database_url, writes=True)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(offsets.insert(), {"topic": KafkaTopic.VERDICTS, "partition": 0, "next": count, "epoch": 1})
    engine.dispose()
    names = [column.name for column in frames.columns]

    def made() -> Iterator[tuple[object, ...]]:
        texts: dict[str, object] = {"class_name": "hazard", "model_id": "scene@0123456789abcdef", "policy": "usual"}
        usual = [texts.get(name, "" if frames.c[name].type.python_type is str else 123_456) for name in names]
        for number in range(count):
            yield (f"local/cam-{number % 1000:03}", 2**62 + number % 1000, number // 1000, *usual[3:])

    marks = ", ".join("?" * len(names))
    with closing(sqlite3.connect(layout.database)) as opened, opened:
        opened.execute("pragma synchronous = off")
        opened.executemany(f"insert into frames values ({marks})", made())
