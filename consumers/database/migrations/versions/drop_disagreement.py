"""Version 5: drop disagreement next to STRIP's entropy, and the windows on which a label depends."""

from __future__ import annotations

import struct

from alembic import op
from sqlalchemy import Column, Float, LargeBinary, Text, column, literal, select, table, update

revision = "5"
down_revision = "4"

_TRACK = struct.Struct("<HHdqiqq")
_PAST = struct.Struct("<d?")
_PROBE, _WIDER = struct.Struct("<Qff?I"), struct.Struct("<Qff?Iff")
_EMPTY = _TRACK.pack(0, 0, 0.0, -1, -1, -1, -1)
_COLUMNS = {
    "frames": ("agreement", "agreement_threshold", "windows"),
    "alerts": ("mean_agreement", "agreement_threshold", "baseline_agreement", "window"),
}


def upgrade() -> None:
    """Add the columns, empty, and widen the stored evidence by a track of agreements."""
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        # Another recorder may still run: its evidence would be in the old form.
        op.execute("LOCK TABLE evidence IN ACCESS EXCLUSIVE MODE")
    for name, added in _COLUMNS.items():
        for each in added:
            if name == "frames" and each != "windows" and connection.dialect.name == "sqlite":
                continue  # version 8 drops it, for which SQLite rewrites all frames
            text = each.startswith("window")
            op.add_column(name, Column(each, Text() if text else Float(), nullable=False, server_default=_none(text)))
    evidence = table("evidence", column("camera"), column("boot"), column("waiting", LargeBinary),
                     column("track", LargeBinary))  # fmt: skip
    for camera, boot, waiting, track in connection.execute(select(evidence)).fetchall():
        row = (evidence.c.camera == literal(camera)) & (evidence.c.boot == literal(boot))
        connection.execute(update(evidence).where(row).values(waiting=_probes(waiting), track=_tracks(track)))


def _none(text: bool) -> str:
    return "" if text else "0"


def _probes(data: bytes) -> bytes:
    return b"".join(_WIDER.pack(*each, 0.0, 0.0) for each in _PROBE.iter_unpack(data))


def _tracks(data: bytes) -> bytes:
    if not data:
        return b""
    until = _TRACK.size + _PAST.size * _TRACK.unpack_from(data)[0]
    return data[:until] + _probes(data[until:]) + _EMPTY
