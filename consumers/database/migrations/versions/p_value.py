"""Version 8: one p-value of all statistics in place of the agreement and the typicality of a probe."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Final

from alembic import op
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    LargeBinary,
    Text,
    column,
    inspect,
    select,
    table,
    update,
)

from schemas.errors import StateError
from schemas.runtime.disk import free_bytes

revision = "8"
down_revision = "7"

_TRACK = struct.Struct("<HHdqiqq")
_PAST = struct.Struct("<d?")
_PROBE, _NARROWER = struct.Struct("<Qff?Iffff"), struct.Struct("<Qff?IffB")
_EMPTY = _TRACK.pack(0, 0, 0.0, -1, -1, -1, -1)
_ADDED = {
    "frames": ("p_value", "p_value_threshold", "statistic"),
    "alerts": ("mean_p_value", "p_value_threshold", "baseline_p_value", "statistic"),
}
_DROPPED = {
    "frames": ("agreement", "agreement_threshold", "typicality", "typicality_threshold"),
    "alerts": (
        *("mean_agreement", "agreement_threshold", "baseline_agreement"),
        *("mean_typicality", "typicality_threshold", "baseline_typicality"),
    ),
}

_REWRITTEN: Final = 3
"""Free bytes for each byte of a SQLite: its log and file grow by more than two when columns of `frames` are dropped."""


def upgrade() -> None:
    """Replace the columns; keep STRIP's track of the stored evidence, and each snapshot of a camera.

    A SQLite has no such columns of `frames` unless an earlier release made versions 5 to 7. Raises `StateError` if the
    disk has too little space to drop them.
    """
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        # Another recorder may still run: it would write the old form.
        op.execute("LOCK TABLE evidence, camera_snapshots IN ACCESS EXCLUSIVE MODE")
    held = {name: {each["name"] for each in inspect(connection).get_columns(name)} for name in _ADDED}
    if connection.dialect.name == "sqlite" and not held["frames"].isdisjoint(_DROPPED["frames"]):
        _check_space(connection)
    for name, added in _ADDED.items():
        for each in added:
            kind = BigInteger() if each == "statistic" else Float()
            op.add_column(name, Column(each, kind, nullable=False, server_default="0"))
        for each in _DROPPED[name]:
            if each in held[name]:
                op.drop_column(name, each)
    evidence = table("evidence", column("camera", Text), column("boot", BigInteger), column("waiting", LargeBinary),
                     column("track", LargeBinary))  # fmt: skip
    for camera, boot, waiting, track in connection.execute(select(evidence)).fetchall():
        row = (evidence.c.camera == camera) & (evidence.c.boot == boot)
        connection.execute(update(evidence).where(row).values(waiting=_probes(waiting), track=_tracks(track)))
    snapshots = table("camera_snapshots", column("camera", Text), column("state", Text))
    for camera, state in connection.execute(select(snapshots)).fetchall():
        connection.execute(update(snapshots).where(snapshots.c.camera == camera).values(state=_snapshot(state)))


def _check_space(connection: Connection) -> None:
    """Raise `StateError` if the disk has too little space to rewrite the frames of a SQLite."""
    pages, page_bytes = (connection.exec_driver_sql(f"PRAGMA page_{name}").scalar_one() for name in ("count", "size"))
    folder = Path(connection.engine.url.database or "").parent
    needed, free = _REWRITTEN * pages * page_bytes / 2**20, free_bytes(folder) / 2**20
    if free < needed:
        raise StateError(
            f"the database: expected {needed:,.0f} MiB of free disk in {folder} for its upgrade, got {free:,.0f} MiB. "
            "It stays as it is. Free some space and start again."
        )


def _probes(data: bytes) -> bytes:
    return b"".join(_NARROWER.pack(*each[:5], 0.0, 0.0, 0) for each in _PROBE.iter_unpack(data))


def _tracks(data: bytes) -> bytes:
    """Return STRIP's track, the first of three, and an empty one."""
    if not data:
        return b""
    past, run = _TRACK.unpack_from(data)[:2]
    until = _TRACK.size + past * _PAST.size
    return data[:until] + _probes(data[until : until + run * _PROBE.size]) + _EMPTY


def _snapshot(state: str) -> str:
    """Return the state with its row of `frames` as the first 28 columns and `windows`, if it has this column."""
    frames, row, *rest = json.loads(state)
    return json.dumps([frames, [*row[:28], *row[30:31]], *rest])
