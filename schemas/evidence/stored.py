"""The database's format of a camera's evidence."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from schemas.errors import StateError
from schemas.evidence.alarms import Tracks
from schemas.evidence.track import NO_SCENE, OCTAVES, PastFrame, Probe, SceneSum, Track
from schemas.identity import SEQ_LIMIT
from schemas.pointillist_pb2 import Statistic

_TRACK: Final = struct.Struct("<HHHdqiqq")
_PAST: Final = struct.Struct("<d?q")
_PROBE: Final = struct.Struct("<Qff?IffBq")
_SCENE: Final = struct.Struct("<qd")
_NETWORK: Final = struct.Struct("<f")
_STATISTICS: Final = frozenset(Statistic.values())


def pack_probes(probes: Iterable[Probe]) -> bytes:
    """Serialise probes for the database."""
    return b"".join(
        _PROBE.pack(
            each.seq, each.entropy_bits, each.threshold_bits,
            each.flagged, each.class_id, each.p_value, each.p_value_threshold, each.statistic, each.scene,
        )
        for each in probes
    )  # fmt: skip


def unpack_probes(data: bytes) -> tuple[Probe, ...]:
    """Invert `pack_probes`. Raises StateError for values that no frame has."""
    try:
        probes = tuple(Probe(*each) for each in _PROBE.iter_unpack(data))
    except struct.error as error:
        raise StateError(f"evidence in the database: expected frames, got {error}. Restore the database.") from None
    if not all(before.seq < after.seq for before, after in pairwise(probes)) or not all(map(_is_possible, probes)):
        raise StateError(
            "evidence in the database: expected frames in their order, with finite values, got others. Restore the "
            "database."
        )
    return probes


def _is_possible(probe: Probe) -> bool:
    values = (probe.entropy_bits, probe.threshold_bits, probe.p_value, probe.p_value_threshold)
    in_range = probe.seq < SEQ_LIMIT and NO_SCENE <= probe.scene < SEQ_LIMIT and probe.statistic in _STATISTICS
    return in_range and all(map(math.isfinite, values))


def pack_tracks(tracks: Tracks) -> bytes:
    """Serialise the tracks of one boot for the database: each track, then the threshold of STRIP's network."""
    return b"".join(map(_pack, tracks)) + _NETWORK.pack(tracks.strip.network_bits)


def _pack(track: Track) -> bytes:
    head = _TRACK.pack(
        len(track.history), len(track.run), len(track.scene_sums),
        track.total, track.last, track.calm, track.class_id, track.run_from,
    )  # fmt: skip
    past = b"".join(_PAST.pack(*each) for each in track.history)
    return head + past + b"".join(_SCENE.pack(*each) for each in track.scene_sums) + pack_probes(track.run)


def unpack_tracks(data: bytes) -> Tracks:
    """Invert `pack_tracks`; empty bytes give empty tracks. Raises StateError for bytes of any other origin.

    Bytes of an earlier version end without the threshold. Such a history is on the scale of the next frame's network.
    """
    if not data:
        return Tracks()
    tracks, used = list[Track](), 0
    try:
        for _ in Tracks._fields:
            track, more = _unpack(data[used:])
            tracks.append(track)
            used += more
        network_bits = _NETWORK.unpack(data[used:])[0] if used < len(data) else 0.0
    except struct.error as error:
        raise StateError(
            f"evidence in the database: expected {len(Tracks._fields)} tracks, got {error}. Restore the database."
        ) from None
    if not 0 <= network_bits < math.inf:
        raise StateError(
            f"evidence in the database: expected a finite threshold, got {network_bits}. Restore the database."
        )
    found = Tracks(*tracks)
    return found._replace(strip=found.strip._replace(network_bits=network_bits))


def _unpack(data: bytes) -> tuple[Track, int]:
    """Return the first track of `data`, and the number of its bytes."""
    known, running, scenes, total, last, calm, class_id, run_from = _TRACK.unpack_from(data)
    after_history = _TRACK.size + _PAST.size * known
    until = after_history + _SCENE.size * scenes
    end = until + _PROBE.size * running
    if len(data) < end:
        raise struct.error(f"{len(data)} bytes for a track of {end}")
    history = tuple(PastFrame(*each) for each in _PAST.iter_unpack(data[_TRACK.size : after_history]))
    sums = tuple(SceneSum(*each) for each in _SCENE.iter_unpack(data[after_history:until]))
    least, most = OCTAVES
    possible = (
        0 <= total < math.inf
        and all(least <= each.octaves <= most and NO_SCENE <= each.scene < SEQ_LIMIT for each in history)
        and all(0 <= each.octaves < math.inf and 0 <= each.scene < SEQ_LIMIT for each in sums)
        and len({each.scene for each in sums}) == len(sums)
    )
    if not possible:
        raise StateError(
            "evidence in the database: expected the sum and the history of a track, got others. Restore the database."
        )
    track = Track(history, unpack_probes(data[until:end]), total, last, calm, class_id, run_from, scene_sums=sums)
    return track, end
