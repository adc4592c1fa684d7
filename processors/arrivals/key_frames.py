"""Key frames of the profile `temporal` that the processor holds, and where in Kafka they lie.

A key frame that gave way to others can be read back by its place. The places of those in use travel as the note of each
commit, so that whoever takes a partition over reads them back before its first frame: they may lie far behind the
committed offset. The bound on notes is Kafka's (`offset.metadata.max.bytes`, 4096 by default).
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left, insort
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from schemas.frame import decode_key
from schemas.identity import CameraId, Identity
from schemas.keys import CameraKey
from schemas.pixels.temporal import KeyPicture
from schemas.pointillist_pb2 import Frame

OF_A_CAMERA: Final = 4
"""Key frames held of one camera, so that none pushes out the others'."""
NOTED_OF_A_CAMERA: Final = 3
"""More than one, because what is sent again comes out of its order."""
PLACES: Final = 65_536
MAX_NOTE: Final = 4096
_MARK: Final = "keys:"


@dataclass(slots=True, eq=False)
class KeyFrame:
    """A verified key frame and its place in the frames topic."""

    identity: Identity
    key: CameraKey
    frame: Frame
    partition: int
    offset: int
    _picture: KeyPicture | None = field(default=None, init=False)

    @property
    def held_bytes(self) -> int:
        """Memory that it keeps once it is decoded."""
        pixels = self.frame.height * self.frame.width
        return len(self.frame.pixels) + pixels * (self.frame.channels + 1)

    def picture(self) -> KeyPicture:
        """What it shows, decoded once; to be called from one thread. Raises `BadPixels`."""
        if self._picture is None:
            self._picture = decode_key(self.key, self.frame)
        return self._picture


class KeyFrames:
    """At most `limit_bytes` of key frames, a few of each camera; the least used give way, and leave their place."""

    def __init__(self, limit_bytes: int, places: int = PLACES) -> None:
        self._limit_bytes = limit_bytes
        self._most_places = places
        self._held: OrderedDict[Identity, KeyFrame] = OrderedDict()
        self._held_of: defaultdict[CameraId, list[Identity]] = defaultdict(list)
        self._places: OrderedDict[Identity, tuple[int, int]] = OrderedDict()
        self._places_in: defaultdict[int, dict[CameraId, list[tuple[int, Identity]]]] = defaultdict(dict)
        """By partition and camera: offsets, ascending."""
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def put(self, key_frame: KeyFrame) -> None:
        """Hold a key frame; one alone may be larger than the bound."""
        identity = key_frame.identity
        if identity in self._held:
            self._drop(identity)
        self._held[identity] = key_frame
        self.bytes += key_frame.held_bytes
        own = self._held_of[identity.camera_id]
        own.append(identity)
        if len(own) > OF_A_CAMERA:
            self._drop(own[0])
        while self.bytes > self._limit_bytes and len(self._held) > 1:
            self._drop(next(iter(self._held)))
        self._put_place(identity, key_frame.partition, key_frame.offset)

    def find(self, identity: Identity) -> KeyFrame | None:
        """The key frame if it is held; it counts as used now."""
        found = self._held.get(identity)
        if found is not None:
            self._held.move_to_end(identity)
            own = self._held_of[identity.camera_id]
            own.remove(identity)
            own.append(identity)
        return found

    def place(self, identity: Identity) -> tuple[int, int] | None:
        """Partition and offset of a key frame that was held once."""
        return self._places.get(identity)

    def places(self) -> set[tuple[int, int]]:
        """Partition and offset of all that are held."""
        return {(key_frame.partition, key_frame.offset) for key_frame in self._held.values()}

    def note(self, partition: int, before: int) -> str:
        """The places that a commit of this offset goes with: of each camera, the last key frames before it.

        Frames from that offset on may name them; earlier ones are forgotten. Key frames from that offset on are kept
        in mind until a later commit: what was taken from Kafka runs ahead of what is committed.
        """
        offsets: list[int] = []
        for places in self._places_in[partition].values():
            passed = bisect_left(places, before, key=lambda place: place[0])
            for _, identity in places[: max(0, passed - NOTED_OF_A_CAMERA)]:
                del self._places[identity]
            del places[: max(0, passed - NOTED_OF_A_CAMERA)]
            offsets += [offset for offset, _ in places[: min(passed, NOTED_OF_A_CAMERA)]]
        return write_note(offsets)

    def _put_place(self, identity: Identity, partition: int, offset: int) -> None:
        known = self._places.get(identity)
        if known is not None:
            if known[0] == partition and known[1] <= offset:
                return  # a resend
            self._forget(identity)
        self._places[identity] = (partition, offset)
        insort(self._places_in[partition].setdefault(identity.camera_id, []), (offset, identity))
        if len(self._places) > self._most_places:
            self._forget(next(iter(self._places)))

    def _drop(self, identity: Identity) -> None:
        self.bytes -= self._held.pop(identity).held_bytes
        own = self._held_of[identity.camera_id]
        own.remove(identity)
        if not own:
            del self._held_of[identity.camera_id]

    def _forget(self, identity: Identity) -> None:
        partition, offset = self._places.pop(identity)
        cameras = self._places_in[partition]
        cameras[identity.camera_id].remove((offset, identity))
        if not cameras[identity.camera_id]:
            del cameras[identity.camera_id]


def write_note(offsets: Iterable[int]) -> str:
    """A note of these offsets: differences, seven bits to a byte; what does not fit is left out, the lowest first."""
    room = (MAX_NOTE - len(_MARK)) * 3 // 4 - 10
    packed: list[bytes] = []
    # From the highest down, each as its distance to the one above it.
    above = None
    for offset in sorted(set(offsets), reverse=True):
        part = _varint(offset if above is None else above - offset)
        room -= len(part)
        if room < 0:
            break
        packed.append(part)
        above = offset
    return _MARK + base64.b64encode(b"".join(packed)).decode() if packed else ""


def read_note(note: str) -> list[int]:
    """The offsets of a note, highest first; none for what `write_note` cannot have written."""
    if not note.startswith(_MARK) or len(note) > MAX_NOTE:
        return []
    try:
        packed = base64.b64decode(note[len(_MARK) :], validate=True)
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


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
