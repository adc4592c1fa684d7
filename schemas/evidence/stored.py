"""The database's format of a camera's evidence."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from schemas.errors import StateError
from schemas.evidence.track import Past, Probe, Track

_TRACK: Final = struct.Struct("<HHdqiqq")
_PAST: Final = struct.Struct("<d?")
_PROBE: Final = struct.Struct("<Qff?I")


def pack_probes(probes: Iterable[Probe]) -> bytes:
    """Serialise probes for the database."""
    return b"".join(
        _PROBE.pack(
            each.seq, each.entropy_bits, each.threshold_bits,
            each.flagged, each.class_id,
        )
        for each in probes
    )  # fmt: skip


def unpack_probes(data: bytes) -> tuple[Probe, ...]:
    """Invert `pack_probes`."""
    return tuple(
        Probe(seq, entropy, threshold, flagged, class_id)
        for seq, entropy, threshold, flagged, class_id in _PROBE.iter_unpack(data)
    )


def pack_track(track: Track) -> bytes:
    """Serialise a track for the database."""
    head = _TRACK.pack(
        len(track.history), len(track.run), track.total, track.last, track.calm, track.class_id, track.run_from
    )
    return head + b"".join(_PAST.pack(*each) for each in track.history) + pack_probes(track.run)


def unpack_track(data: bytes) -> Track:
    """Invert `pack_track`; empty bytes give an empty track. Raises StateError for bytes of any other origin."""
    if not data:
        return Track()
    try:
        known, running, total, last, calm, class_id, run_from = _TRACK.unpack_from(data)
        until = _TRACK.size + _PAST.size * known
        history = tuple(Past(*each) for each in _PAST.iter_unpack(data[_TRACK.size : until]))
        run = unpack_probes(data[until:])
    except struct.error as error:
        raise StateError(f"evidence in the database: expected a track, got {error}. Restore the database.") from None
    if len(history) != known or len(run) != running:
        raise StateError(
            f"evidence in the database: expected a track with {known} frames and {running} in its run, got "
            "fewer. Restore the database."
        )
    return Track(history, run, total, last, calm, class_id, run_from)
