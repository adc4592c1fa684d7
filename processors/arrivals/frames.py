"""Verified frames from Kafka records, ready to wait for the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

from processors.arrivals.key_frames import KeyFrame
from processors.arrivals.progress import PartitionProgress
from schemas.errors import Malformed
from schemas.identity import CameraId, Identity, camera_id_on_wire
from schemas.keys.keys import CameraKey, KeyRing
from schemas.limits import CAMERAS_AT_HAND
from schemas.messages.frame import open_keyed_frame, opened_pixels
from schemas.pointillist_pb2 import Frame

TRACEPARENT: Final = "traceparent"


class Record(Protocol):
    """The parts of a Kafka record that are read."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Shape(NamedTuple):
    """The size that all frames of a batch share."""

    height: int
    width: int
    channels: int

    @property
    def pixels(self) -> int:
        """Height x width."""
        return self.height * self.width

    @property
    def values(self) -> int:
        """Height x width x channels."""
        return self.pixels * self.channels


@dataclass(slots=True, eq=False)
class TakenFrame:
    """A verified frame on its way from Kafka to its verdict."""

    camera_id: CameraId
    key: CameraKey
    frame: Frame
    shape: Shape
    arrived_s: float
    progress: PartitionProgress
    partition: int
    offset: int
    frame_bytes: int
    """Length of its message in bytes."""
    traceparent: bytes | None
    counted: bool = True
    """True while it counts as in flight from its partition."""
    key_frame: KeyFrame | None = None
    """The key frame that it depends on, or itself if it is one; None in `raw` and `lossless`."""
    pixel_bytes: int | None = None
    """Length of its field `pixels`, once it has been read: protobuf copies the field on each access."""

    def pixels(self) -> memoryview:
        """Return its pixels as its camera packed them; each call opens them again."""
        found = opened_pixels(self.key, self.frame)
        self.pixel_bytes = len(found)
        return found

    @property
    def identity(self) -> Identity:
        """Its identity."""
        return Identity(self.camera_id, self.frame.boot_id, self.frame.seq)


@lru_cache(maxsize=CAMERAS_AT_HAND)
def _camera_of(key: bytes) -> CameraId:
    try:
        return camera_id_on_wire(key.decode())
    except UnicodeDecodeError:
        raise Malformed(f"expected a camera id as record key, got {key[:140]!r}") from None


def open_record(record: Record, keys: KeyRing, progress: PartitionProgress, now_s: float) -> TakenFrame:
    """Parse a record and verify it again: others than the bridge may write to the topic. Raises WireError."""
    if record.key is None or record.value is None:
        raise Malformed("expected a record with a camera id as key and a frame as value")
    camera_id = _camera_of(record.key)
    frame, key = open_keyed_frame(camera_id, record.value, keys)
    traceparent = None
    for name, value in record.headers:
        if name == TRACEPARENT:
            traceparent = value
    return TakenFrame(
        camera_id,
        key,
        frame,
        Shape(frame.height, frame.width, frame.channels),
        now_s,
        progress,
        record.partition,
        record.offset,
        len(record.value),
        traceparent,
    )
