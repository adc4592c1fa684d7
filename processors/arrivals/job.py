"""The job of one frame: everything that the processor holds for it, from its Kafka record to its result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple, Protocol, Self

from torch import Tensor

from processors.arrivals.key_frames import KeyFrame
from processors.arrivals.progress import PartitionProgress
from processors.bundle.model_toml import Answer, Scores
from processors.stages.certify import Certificate
from processors.stages.scenes import Coarse
from schemas.errors import MalformedError, PointillistError, RevokedKeyError
from schemas.identity import CameraId, Identity, camera_id_on_wire
from schemas.keys.keys import CameraKey, KeyRing
from schemas.limits import MAX_CAMERAS
from schemas.messages.frame import open_keyed_frame, opened_pixels
from schemas.messages.moving import Box
from schemas.pixels.packing import Picture
from schemas.pixels.planes import Planes
from schemas.pointillist_pb2 import Frame, Rollout
from schemas.runtime import trace
from schemas.transport.kafka.sender import Sendable


class Record(Protocol):
    """The parts of a Kafka record that are read."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    timestamp: int


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


class PreviewKind(IntEnum):
    """The pictures of a frame to show to people."""

    NOTHING = 0
    REBUILT = 1
    BOTH = 2
    """The rebuilt picture and the picture as sent."""


@dataclass(frozen=True, slots=True)
class StripFinding:
    """STRIP's result for one frame after `passes` overlays. `entropy_bits` is None if the frame was shed."""

    entropy_bits: float | None
    threshold_bits: float
    passes: int = 0
    p_value: float = 0.0
    """Its p-value by all statistics; see `Pipeline.p_values`."""
    p_value_threshold: float = 0.0
    """P-value below which a frame is suspect; 0 if the bundle has no threshold, and the p-value is unknown."""
    statistic: str = ""
    """The name of the statistic that finds the frame most unusual; empty without a p-value."""
    scene: int | None = None
    """Sequence number of the probe with which the frame's scene began; see `processors.stages.scenes`."""

    @property
    def flagged(self) -> bool:
        """Whether the frame is suspect: by its p-value, or by its entropy without one."""
        if self.entropy_bits is None:
            return False
        if self.p_value_threshold:
            return self.p_value < self.p_value_threshold
        return self.entropy_bits < self.threshold_bits


class WindowDependence(NamedTuple):
    """A window that was dropped on trial, and the probability that the label loses without it."""

    place: Box
    dependence: float


class PatchCertificate(NamedTuple):
    """Whether no square sticker with sides of `patch` frame pixels, at any place, changes the label."""

    patch: int
    certified: bool
    windows: tuple[WindowDependence, ...] = ()
    """The windows that were dropped on trial."""


class Certification(Protocol):
    """The certification of a frame in progress; see `processors.device.certification`."""

    @property
    def side(self) -> int:
        """The side of the sticker in frame pixels."""

    def advance(self) -> Certificate | None:
        """Run the next batch of passes; return the certificate after the last one."""

    def examined(self, certificate: Certificate, scores: Scores, /) -> tuple[WindowDependence, ...]:
        """Return the windows of a certificate in frame pixels, with the dependence of these `scores` on each."""


class ServingModel(Protocol):
    """The loaded model that classifies a frame, as the later steps use it; see `processors.device.loaded_model`."""

    @property
    def model_id(self) -> str:
        """Its name, version and digest."""

    @property
    def policy(self) -> str:
        """Its policy for frames of other sizes."""

    def answer(self, scores: Scores, /) -> Answer:
        """Return a verdict of it in words."""

    @property
    def strip_threshold_bits(self) -> float:
        """The entropy in bits below which a probe is suspect; 0 without STRIP."""

    async def strip(self, jobs: Sequence[FrameJob]) -> float:
        """Judge the probes of jobs on its thread, and return the seconds that this took."""

    @property
    def certifies(self) -> bool:
        """Whether it certifies labels: a candidate does not."""

    async def certify(self, job: FrameJob, /) -> float:
        """Go on with the certificate of a job on its thread, and return the seconds that this took."""


_RESULTS: Final = (
    "stage",
    "error",
    "pixel_bytes",
    "scores",
    "shown",
    "as_sent",
    "changed",
    "probe",
    "coarse",
    "finding",
)
"""Fields of a job that the device sets."""


@dataclass(slots=True, eq=False)
class FrameJob:
    """A record of the frames topic on its way through the steps; each step sets the fields under its name.

    A job has its result once `verdict` or `error` is set, or its `scores` and, for a probe, its `finding`.
    """

    record: Record | None
    """The record until its frame is verified, then None: it would hold the message twice."""
    partition: int
    offset: int
    frame_bytes: int
    """Length of its message in bytes."""
    arrived_s: float
    """Monotonic time at which it was read; while it waits for its batch, the start of the linger."""
    progress: PartitionProgress
    sent_ms: int = 0
    """Unix time at which the bridge sent it to Kafka."""
    counted: bool = True
    """True while it counts as in flight from its partition."""

    # Any step
    stage: str = ""
    """The stage that cannot process the frame; empty without an error."""
    error: PointillistError | None = None

    # Validate
    camera_id: CameraId = field(init=False)
    key: CameraKey = field(init=False)
    frame: Frame = field(init=False)
    shape: Shape = field(init=False)
    traceparent: bytes | None = None
    """The frame's place in its trace, as a header: after this step, for its result."""

    # Deduplicate
    verdict: Sendable | None = None
    """The verdict of the first delivery, if this one is a repeat."""

    # AwaitKeyFrame
    key_frame: KeyFrame | None = None
    """The key frame that it depends on, or itself if it is one; None in `raw` and `lossless`."""

    # Decode
    planes: Planes | None = None
    """The decoded picture under `video`, until it is classified or, of a probe, until its verdict is made."""
    decoded_bytes: int = 0
    """Memory of `planes`, which counts from the time at which they are due."""

    # Classify
    wanted: PreviewKind = PreviewKind.NOTHING
    model: ServingModel = field(init=False)
    scores: Scores = field(init=False)
    classified_s: float = math.inf
    """Monotonic time at which it was classified."""
    shown: Picture | None = None
    """(h, w, C) uint8 for people, if it is wanted; see `Pipeline.show`."""
    as_sent: Picture | None = None
    """(h, w, C) uint8, black at dropped pixels, if it is wanted; see `Pipeline.show_sent`."""
    changed: float | None = None
    """Mean change of the pixels that were sent twice, in grey levels of 255; None without a comparison. Under `video`,
    `Decode` sets it: the camera has measured it."""
    probe: Tensor | None = None
    """STRIP's input (channels, height, width) on the device; None unless the frame is a probe."""
    coarse: Coarse | None = None
    """The blocks of a probe's whole frame, by which its scene is recognised; None for a bundle without p-values."""
    rollout: Rollout | None = None
    """The rollout under which it was classified; None without one."""
    second: FrameJob | None = None
    """Its copy for the second model of a rollout; None unless both models judge the frame."""
    judged_before: bool = False
    """Whether a model has classified it already: it then changes no state that a model keeps across frames."""
    by_candidate: bool = False
    """Whether its `scores` are the candidate's."""
    candidate_error: str = ""
    """Why the candidate, which should have given the verdict, has no answer."""
    pixel_bytes: int | None = None
    """Length of its field `pixels`, once it has been read: protobuf copies the field on each access."""

    # Strip
    finding: StripFinding | None = None
    """None unless the frame is a probe."""

    # Certify
    certifies: bool = False
    """Whether its label is to be certified, whatever STRIP finds."""
    certification: Certification | None = None
    """The certification in progress."""
    certified: PatchCertificate | None = None
    """None unless the label was examined."""

    @classmethod
    def of(cls, record: Record, progress: PartitionProgress, arrived_s: float) -> Self:
        """Return the job of a record that was read at `arrived_s`, by the monotonic clock."""
        frame_bytes = len(record.value or b"")
        return cls(record, record.partition, record.offset, frame_bytes, arrived_s, progress, record.timestamp)

    def open(self, keys: KeyRing) -> None:
        """Parse the record and verify it again: others than the bridge may write to the topic. Raises WireError.

        A frame whose key was revoked while it waited in Kafka is rejected, and has its identity for its dead letter.
        """
        record = self.record
        if record is None or record.key is None or record.value is None:
            raise MalformedError("expected a record with a camera id as key and a frame as value")
        self.camera_id = _camera_of(record.key)
        try:
            frame, self.key = open_keyed_frame(self.camera_id, record.value, keys)
        except RevokedKeyError:
            self.frame, self.key = open_keyed_frame(self.camera_id, record.value, keys.every_generation())
            self.record = None
            raise
        self.frame = frame
        for name, value in record.headers:
            if name == trace.TRACEPARENT:
                self.traceparent = value
        self.shape = Shape(frame.height, frame.width, frame.channels)
        self.record = None

    def fail(self, stage: str, error: PointillistError) -> None:
        """Note that a stage cannot process the frame, not even alone."""
        self.stage, self.error = stage, error

    def take_results(self, other: FrameJob) -> None:
        """Take over the results that the device has set on a copy."""
        for name in _RESULTS:
            if hasattr(other, name):
                setattr(self, name, getattr(other, name))

    @property
    def concluded(self) -> bool:
        """Whether it has its result before the device: an error, or the verdict of its first delivery."""
        return self.error is not None or self.verdict is not None

    @property
    def class_id(self) -> int:
        """The class of the network's result."""
        return self.scores.class_id

    @property
    def confidence(self) -> float:
        """The confidence of that class."""
        return self.scores.confidence

    @property
    def identity(self) -> Identity:
        """The identity of its frame."""
        return Identity(self.camera_id, self.frame.boot_id, self.frame.seq)

    @property
    def key_identity(self) -> Identity:
        """The identity of the key frame that its frame depends on; that of the frame if it depends on none."""
        return Identity(self.camera_id, self.frame.boot_id, self.frame.seq - self.frame.key_distance)

    @property
    def held_bytes(self) -> int:
        """Memory in bytes that it keeps while it waits for STRIP."""
        held = (self.shown, self.as_sent, self.probe)
        decoded = self.decoded_bytes if self.planes is not None else 0
        return self.frame_bytes + decoded + sum(each.nbytes for each in held if each is not None)

    def pixels(self) -> memoryview:
        """Return its pixels as its camera packed them; each call opens them again."""
        found = opened_pixels(self.key, self.frame)
        self.pixel_bytes = len(found)
        return found


def open_record(record: Record, keys: KeyRing) -> FrameJob:
    """Return the job of a verified frame that counts for no partition. Raises WireError."""
    job = FrameJob.of(record, PartitionProgress(), 0.0)
    job.open(keys)
    return job


@lru_cache(maxsize=MAX_CAMERAS)
def _camera_of(key: bytes) -> CameraId:
    try:
        return camera_id_on_wire(key.decode())
    except UnicodeDecodeError:
        raise MalformedError(f"expected a camera id as record key, got {key[:140]!r}") from None
