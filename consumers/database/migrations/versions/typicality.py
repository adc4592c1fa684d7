"""Version 7: the typicality of a probe's features next to its entropy and agreement."""

from __future__ import annotations

import struct

from alembic import op
from sqlalchemy import Column, Float, LargeBinary, column, literal, select, table, update

revision = "7"
down_revision = "6"

_TRACK = struct.Struct("<HHdqiqq")
_PAST = struct.Struct("<d?")
_PROBE, _WIDER = struct.Struct("<Qff?Iff"), struct.Struct("<Qff?Iffff")
_EMPTY = _TRACK.pack(0, 0, 0.0, -1, -1, -1, -1)
_COLUMNS = {
    "frames": ("typicality", "typicality_threshold"),
    "alerts": ("mean_typicality", "typicality_threshold", "baseline_typicality"),
}


def upgrade() -> None:
    """Add the columns, empty, and widen the stored evidence by a track of typicalities."""
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        # Another recorder may still run: its evidence would be in the old form.
        op.execute("LOCK TABLE evidence IN ACCESS EXCLUSIVE MODE")
    for name, added in _COLUMNS.items():
        if name == "frames" and connection.dialect.name == "sqlite":
            continue  # version 8 drops them, for which SQLite rewrites all frames
        for each in added:
            op.add_column(name, Column(each, Float(), nullable=False, server_default="0"))
    evidence = table("evidence", column("camera"), column("boot"), column("waiting", LargeBinary),
                     column("track", LargeBinary))  # fmt: skip
    for camera, boot, waiting, track in connection.execute(select(evidence)).fetchall():
        row = (evidence.c.camera == literal(camera)) & (evidence.c.boot == literal(boot))
        connection.execute(update(evidence).where(row).values(waiting=_probes(waiting), track=_tracks(track)))


def _probes(data: bytes) -> bytes:
    return b"".join(_WIDER.pack(*each, 0.0, 0.0) for each in _PROBE.iter_unpack(data))


def _tracks(data: bytes) -> bytes:
    if not data:
        return b""
    wider = b""
    for _ in range(2):
        past, run = _TRACK.unpack_from(data)[:2]
        until = _TRACK.size + past * _PAST.size
        end = until + run * _PROBE.size
        wider += data[:until] + _probes(data[until:end])
        data = data[end:]
    return wider + _EMPTY
