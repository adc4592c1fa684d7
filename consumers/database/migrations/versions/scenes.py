"""Version 11: the scene of a checked frame."""

from __future__ import annotations

import struct
from collections.abc import Callable

from alembic import op
from sqlalchemy import BigInteger, Column, LargeBinary, Text, column, select, table, update

revision = "11"
down_revision = "10"

_NO_SCENE = -1
_TRACK, _TRACK_AFTER = struct.Struct("<HHdqiqq"), struct.Struct("<HHHdqiqq")
_PAST, _PAST_AFTER = struct.Struct("<d?"), struct.Struct("<d?q")
_PROBE, _PROBE_AFTER = struct.Struct("<Qff?IffB"), struct.Struct("<Qff?IffBq")
_TRACKS = 2


def upgrade() -> None:
    """Add the column, and no scene to the stored evidence."""
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        # Another recorder may still run: it would write the old form.
        op.execute("LOCK TABLE frames, evidence IN ACCESS EXCLUSIVE MODE")
    op.add_column("frames", Column("scene", BigInteger(), nullable=False, server_default=str(_NO_SCENE)))
    evidence = table("evidence", column("camera", Text), column("boot", BigInteger), column("waiting", LargeBinary),
                     column("track", LargeBinary))  # fmt: skip
    for camera, boot, waiting, track in connection.execute(select(evidence)).fetchall():
        row = (evidence.c.camera == camera) & (evidence.c.boot == boot)
        after = {"waiting": _unless_damaged(_probes, waiting), "track": _unless_damaged(_tracks, track)}
        connection.execute(update(evidence).where(row).values(after))


def _unless_damaged(convert: Callable[[bytes], bytes], data: bytes) -> bytes:
    """Return damaged data as it is: the recorder reports it, and begins the evidence again."""
    try:
        return convert(data)
    except struct.error:
        return data


def _probes(data: bytes) -> bytes:
    return b"".join(_PROBE_AFTER.pack(*each, _NO_SCENE) for each in _PROBE.iter_unpack(data))


def _tracks(data: bytes) -> bytes:
    """Return both tracks with no scenes, and what follows them."""
    after = b""
    for _ in range(_TRACKS if data else 0):
        past, run, *rest = _TRACK.unpack_from(data)
        until = _TRACK.size + past * _PAST.size
        end = until + run * _PROBE.size
        history = b"".join(_PAST_AFTER.pack(*each, _NO_SCENE) for each in _PAST.iter_unpack(data[_TRACK.size : until]))
        after += _TRACK_AFTER.pack(past, run, 0, *rest) + history + _probes(data[until:end])
        data = data[end:]
    return after + data
