"""The key frames that a processor holds for each camera, and their places in Kafka.

For profiles whose frames depend on a key frame (`schemas.messages.frame.KEYED_PROFILES`). A key frame that was
dropped from memory is read back by its place. Each commit carries the places of the key frames in use as a note: they
may lie far behind the committed offset. After a rebalance, the new owner of the partition reads these records back
before its first frame. Under `video`, it needs the frames between a key frame and the committed offset as well: the
note ends with the span of offsets that holds the open groups (`open_groups`). Kafka bounds the length of a note
(`offset.metadata.max.bytes`, 4096 by default).
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left, insort
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from schemas.identity import CameraId, Identity
from schemas.pointillist_pb2 import Frame
from schemas.varint import varint

HELD_PER_CAMERA: Final = 4
"""A bound for each camera, so that no camera displaces the key frames of others."""
NOTED_PER_CAMERA: Final = 3
"""More than one, because resent frames arrive out of order."""
PLACES: Final = 65_536
MAX_NOTE: Final = 4096
_MARK: Final = "keys:"
_SPAN: Final = ";open:"
_SPAN_CHARACTERS: Final = 48


@dataclass(slots=True, eq=False)
class KeyFrame:
    """A verified key frame and its place in the frames topic."""

    identity: Identity
    frame: Frame
    partition: int
    offset: int
    sent_ms: int
    """Unix time of its record."""

    @property
    def held_bytes(self) -> int:
        """Memory of its message."""
        return self.frame.ByteSize()


class KeyFrames:
    """Key frames in memory, and the places of more.

    The least recently used key frames are dropped first. Their places stay.
    """

    def __init__(self, limit_bytes: int, places: int = PLACES) -> None:
        """Hold at most `limit_bytes` of key frames, and the places of at most `places`."""
        self._limit_bytes = limit_bytes
        self._place_limit = places
        self._held: OrderedDict[Identity, KeyFrame] = OrderedDict()
        self._held_of: defaultdict[CameraId, list[Identity]] = defaultdict(list)
        self._places: OrderedDict[Identity, tuple[int, int, int]] = OrderedDict()
        """Partition, offset and Unix time in milliseconds."""
        self._places_in: defaultdict[int, dict[CameraId, list[tuple[int, Identity]]]] = defaultdict(dict)
        """Offsets by partition and camera, ascending."""
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def put(self, key_frame: KeyFrame) -> None:
        """Hold a key frame. A single one may be larger than the bound."""
        identity = key_frame.identity
        if identity in self._held:
            self._drop(identity)
        self._held[identity] = key_frame
        self.bytes += key_frame.held_bytes
        own = self._held_of[identity.camera_id]
        own.append(identity)
        if len(own) > HELD_PER_CAMERA:
            self._drop(own[0])
        while self.bytes > self._limit_bytes and len(self._held) > 1:
            self._drop(next(iter(self._held)))
        self._put_place(identity, key_frame.partition, key_frame.offset, key_frame.sent_ms)

    def find(self, identity: Identity) -> KeyFrame | None:
        """Return the key frame if it is held, and count it as used now."""
        found = self._held.get(identity)
        if found is not None:
            self._held.move_to_end(identity)
            own = self._held_of[identity.camera_id]
            own.remove(identity)
            own.append(identity)
        return found

    def place(self, identity: Identity) -> tuple[int, int] | None:
        """Return partition and offset of a key frame that is or was held."""
        found = self._places.get(identity)
        return None if found is None else found[:2]

    def first_delivery(self, key_frame: KeyFrame) -> tuple[int, int, int]:
        """Return partition, offset and Unix time in milliseconds of a key frame's first record."""
        known = self._places.get(key_frame.identity)
        return known or (key_frame.partition, key_frame.offset, key_frame.sent_ms)

    def places(self) -> set[tuple[int, int]]:
        """Return partition and offset of all held key frames."""
        return {(key_frame.partition, key_frame.offset) for key_frame in self._held.values()}

    def note(self, partition: int, before: int, span: range = range(0)) -> str:
        """Return the note for a commit of the offset `before`: the places of each camera's last key frames before it.

        `span` has the offsets of the open groups.

        Frames from `before` on may depend on them. The places of earlier key frames are removed. The places of key
        frames from `before` on stay for a later commit: the processor reads ahead of what it commits.
        """
        offsets: list[int] = []
        for places in self._places_in[partition].values():
            passed = bisect_left(places, before, key=lambda place: place[0])
            for _, identity in places[: max(0, passed - NOTED_PER_CAMERA)]:
                del self._places[identity]
            del places[: max(0, passed - NOTED_PER_CAMERA)]
            offsets += [offset for offset, _ in places[: min(passed, NOTED_PER_CAMERA)]]
        return write_note(offsets, span)

    def _put_place(self, identity: Identity, partition: int, offset: int, sent_ms: int) -> None:
        known = self._places.get(identity)
        if known is not None:
            if known[0] == partition and known[1] <= offset:
                return  # a resend
            self._remove_place(identity)
        self._places[identity] = (partition, offset, sent_ms)
        insort(self._places_in[partition].setdefault(identity.camera_id, []), (offset, identity))
        if len(self._places) > self._place_limit:
            self._remove_place(next(iter(self._places)))

    def _drop(self, identity: Identity) -> None:
        self.bytes -= self._held.pop(identity).held_bytes
        own = self._held_of[identity.camera_id]
        own.remove(identity)
        if not own:
            del self._held_of[identity.camera_id]

    def _remove_place(self, identity: Identity) -> None:
        partition, offset, _ = self._places.pop(identity)
        cameras = self._places_in[partition]
        cameras[identity.camera_id].remove((offset, identity))
        if not cameras[identity.camera_id]:
            del cameras[identity.camera_id]


def write_note(offsets: Iterable[int], span: range = range(0)) -> str:
    """Encode offsets as a note: differences, seven bits to a byte. If they do not fit, the lowest are left out.

    `span` has the offsets of the open groups.
    """
    room = (MAX_NOTE - len(_MARK) - _SPAN_CHARACTERS) * 3 // 4 - 10
    packed: list[bytes] = []
    # Highest first, each as its distance to the one above it.
    above = None
    for offset in sorted(set(offsets), reverse=True):
        part = varint(offset if above is None else above - offset)
        room -= len(part)
        if room < 0:
            break
        packed.append(part)
        above = offset
    if not packed:
        return ""
    end = f"{_SPAN}{span.start}-{span.stop}" if span else ""
    return _MARK + base64.b64encode(b"".join(packed)).decode() + end


def read_note(note: str) -> list[int]:
    """Return the offsets of a note, highest first; none if `write_note` cannot have written it."""
    if not note.startswith(_MARK) or len(note) > MAX_NOTE:
        return []
    try:
        packed = base64.b64decode(note[len(_MARK) :].partition(_SPAN)[0], validate=True)
    except (binascii.Error, ValueError):
        return []
    offsets: list[int] = []
    value = shift = 0
    for byte in packed:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            offset = value if not offsets else offsets[-1] - value
            if not 0 <= offset < 2**63:
                return []
            offsets.append(offset)
            value = shift = 0
    return offsets if not shift else []


def read_span(note: str) -> range:
    """Return the offsets of the open groups in a note; empty if `write_note` cannot have written them."""
    first, _, end = note.partition(_SPAN)[2].partition("-")
    if not note.startswith(_MARK) or len(note) > MAX_NOTE or not (first.isdecimal() and end.isdecimal()):
        return range(0)
    return range(int(first), int(end)) if int(end) < 2**63 else range(0)
