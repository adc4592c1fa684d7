"""Version 8: one p-value of all statistics in place of the agreement and the typicality of a probe."""

from __future__ import annotations

import json
import struct

from alembic import op
from sqlalchemy import BigInteger, Column, Float, LargeBinary, Text, column, select, table, update

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


def upgrade() -> None:
    """Replace the columns; keep STRIP's track of the stored evidence, and each snapshot of a camera."""
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        # Another recorder may still run: it would write the old form.
        op.execute("LOCK TABLE evidence, camera_snapshots IN ACCESS EXCLUSIVE MODE")
    for name, added in _ADDED.items():
        for each in added:
            kind = BigInteger() if each == "statistic" else Float()
            op.add_column(name, Column(each, kind, nullable=False, server_default="0"))
        for each in _DROPPED[name]:
            op.drop_column(name, each)
    evidence = table("evidence", column("camera", Text), column("boot", BigInteger), column("waiting", LargeBinary),
                     column("track", LargeBinary))  # fmt: skip
    for camera, boot, waiting, track in connection.execute(select(evidence)).fetchall():
        row = (evidence.c.camera == camera) & (evidence.c.boot == boot)
        connection.execute(update(evidence).where(row).values(waiting=_probes(waiting), track=_tracks(track)))
    snapshots = table("camera_snapshots", column("camera", Text), column("state", Text))
    for camera, state in connection.execute(select(snapshots)).fetchall():
        connection.execute(update(snapshots).where(snapshots.c.camera == camera).values(state=_snapshot(state)))


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
