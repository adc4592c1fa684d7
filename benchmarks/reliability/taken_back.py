"""The recorder's database in the form of an earlier version, for the drill `upgrade`."""

from __future__ import annotations

import json
import struct
from typing import Final

from sqlalchemy import Connection, select, update

from consumers.database.engine import open_engine
from consumers.database.migrations import VERSION_TALLY, read_version
from consumers.database.tables import (
    SCHEMA_VERSION,
    alerts,
    camera_snapshots,
    evidence,
    frames,
    sighting_rules,
    tallies,
    versions,
)

VERSION: Final = 4
_TRACK, _WIDER_TRACK = struct.Struct("<HHdqiqq"), struct.Struct("<HHHdqiqq")
_PAST, _WIDER_PAST = struct.Struct("<d?"), struct.Struct("<d?q")
_PROBE, _WIDER = struct.Struct("<Qff?I"), struct.Struct("<Qff?IffBq")
_SCENE: Final = struct.Struct("<qd")
_COLUMNS: Final = 28
"""Columns of `frames` in that version, the first ones of this release."""
_VALUES: Final = 7
"""Values of a camera's snapshot in that version, the first ones of this release."""
_ADDED: Final = {
    frames.name: ("windows", "p_value", "p_value_threshold", "statistic", "scene"),
    alerts.name: (
        *("window", "wanted", "confidence", "ended_ms", "partition"),
        *("mean_p_value", "p_value_threshold", "baseline_p_value", "statistic"),
    ),
}


def take_back(url: str) -> int:
    """Give a database of this release's version, in which nobody writes, the form of version 4. Return its version.

    A database of an earlier version stays as it is. The p-values with their evidence, the windows and the rules of
    sightings are lost.
    """
    engine = open_engine(url, writes=True)
    try:
        with engine.begin() as connection:
            found = read_version(connection)
            if found != SCHEMA_VERSION:
                return int(found or 0)
            _narrow(connection)
        return VERSION
    finally:
        engine.dispose()


def _narrow(connection: Connection) -> None:
    for row in connection.execute(select(evidence)).fetchall():
        narrow = {"waiting": _probes(row.waiting), "track": _first_track(row.track)}
        of_row = (evidence.c.camera == row.camera) & (evidence.c.boot == row.boot)
        connection.execute(update(evidence).where(of_row).values(narrow))
    for row in connection.execute(select(camera_snapshots)).fetchall():
        count, last, *rest = json.loads(row.state)[:_VALUES]
        of_camera = camera_snapshots.c.camera == row.camera
        state = json.dumps([count, last[:_COLUMNS], *rest])
        connection.execute(update(camera_snapshots).where(of_camera).values(state=state))
    for index in ("alerts_of_sightings", "alerts_by_end", "alerts_by_camera"):
        connection.exec_driver_sql(f"DROP INDEX {index}")
    sighting_rules.drop(connection)
    for table, added in _ADDED.items():
        for column in added:
            connection.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN {column}")
    connection.execute(update(versions).values(version_num=str(VERSION)))
    connection.execute(update(tallies).where(tallies.c.name == VERSION_TALLY).values(value=VERSION))


def _probes(data: bytes) -> bytes:
    return b"".join(_PROBE.pack(*each[:5]) for each in _WIDER.iter_unpack(data))


def _first_track(data: bytes) -> bytes:
    if not data:
        return b""
    past, run, scenes, *rest = _WIDER_TRACK.unpack_from(data)
    after_history = _WIDER_TRACK.size + past * _WIDER_PAST.size
    history = b"".join(
        _PAST.pack(*each[:2]) for each in _WIDER_PAST.iter_unpack(data[_WIDER_TRACK.size : after_history])
    )
    until = after_history + scenes * _SCENE.size
    return _TRACK.pack(past, run, *rest) + history + _probes(data[until : until + run * _WIDER.size])
