"""The step that waits for key frames: a frame that depends on one passes once it is there.

For profiles whose frames depend on a key frame (`schemas.messages.frame.KEYED_PROFILES`). Frames of other profiles
pass.

A key frame can be late, if it went through another bridge or is sent again. If it was dropped from memory, it is read
back from Kafka. If it is lost, the step requests a new one from the camera. Number and time of waiting frames are
bounded.

After a rebalance, the step reads back the key frames in the note of the last commit, and the frames of open groups of
pictures: the decoders need those before the first new frame.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from aiokafka import ConsumerRecord

from processors.arrivals.job import FrameJob, open_record
from processors.arrivals.key_frame_recall import KeyFrameRecall, Place
from processors.arrivals.key_frames import KeyFrame, KeyFrames, read_note, read_span
from processors.arrivals.open_groups import OpenGroups
from processors.arrivals.partitions import PartitionTracker
from processors.decoding.decoders import VideoDecoders
from processors.metrics import ProcessorMetrics
from processors.results.key_requests import KeyRequests
from processors.settings import ProcessorSettings
from processors.steps.decode import video_unit
from processors.steps.step import Step
from schemas.errors import MalformedError, NoKeyFrameError, WireError
from schemas.identity import CameraId, Identity
from schemas.keys.keys import KeyRing
from schemas.limits import MAX_CAMERAS
from schemas.messages.frame import check_key_frame, is_key_frame
from schemas.pointillist_pb2 import VIDEO

_REQUEST_AFTER: Final = 0.25
"""Share of a frame's waiting time after which its key frame is requested: one that is merely late comes sooner."""


@dataclass
class _Recall:
    """The records of a new partition that are read back before its first frame."""

    places: set[Place]
    span: bool
    """True while the frames of open groups are read."""
    done: Callable[[], None]


class AwaitKeyFrame(Step):
    """The key frames of this processor and the frames that wait for one."""

    def __init__(
        self,
        settings: ProcessorSettings,
        keys: KeyRing,
        requests: KeyRequests,
        decoders: VideoDecoders,
        tracker: PartitionTracker,
        metrics: ProcessorMetrics,
    ) -> None:
        """`decoders` get the frames of open groups that are read back."""
        self._tracker = tracker
        self.held = KeyFrames(settings.key_cache_bytes)
        self.recall = KeyFrameRecall(settings.kafka, settings.frames_topic, self.recalled, self.restored)
        """The task that reads key frames back."""
        self._groups = OpenGroups()
        self._decoders = decoders
        self._settings = settings
        self._keys = keys
        self._requests = requests
        self._metrics = metrics
        self._waiting: OrderedDict[Identity, list[FrameJob]] = OrderedDict()
        self._recalling: set[Place] = set()
        self._partitions: dict[int, _Recall] = {}
        self._restored: defaultdict[int, set[CameraId]] = defaultdict(set)
        """Cameras whose units were read back, by partition."""
        self._missing: OrderedDict[Identity, None] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of frames that wait."""
        return sum(len(waiting) for waiting in self._waiting.values())

    # Frames

    def submit(self, job: FrameJob) -> None:
        """Pass a frame on, or let it wait for its key frame.

        A repeat has its verdict already and waits for nothing. Anyone can replay it, so a repeated key frame is held
        only if frames wait for it.
        """
        if job.error is not None:
            self.next.submit(job)
            return
        if is_key_frame(job.frame) and (job.verdict is None or job.identity in self._waiting):
            self._hold(job)
        if job.verdict is not None or not job.frame.key_distance:
            self.next.submit(job)
        else:
            self._await(job, job.key_identity)

    def poll(self, now_s: float) -> None:
        """Request key frames that are late, and fail frames that have waited too long.

        The time counts while the partition is read to its end, or if it is not read because of waiting frames.
        """
        blocked = self._tracker.blocked(self, Counter(job.partition for each in self._waiting.values() for job in each))
        for wanted, waiting in list(self._waiting.items()):
            if self.held.place(wanted) is not None:
                continue
            first = waiting[0]
            since_s = max(first.arrived_s, self._decoders.stalled_s)
            waited_s = now_s - since_s
            if first.partition not in blocked:
                waited_s = first.progress.waited_s(since_s, now_s)
            if waited_s >= self._settings.key_wait_s:
                self._give_up(wanted, now_s)
            elif waited_s >= self._settings.key_wait_s * _REQUEST_AFTER:
                self._requests.post(first, now_s)

    def discard(self, partition: int) -> list[FrameJob]:
        """Remove and return the waiting frames of a partition, and drop the units that were read back for it."""
        self._partitions.pop(partition, None)
        self.recall.spans.pop(partition, None)
        for camera_id in self._restored.pop(partition, ()):
            self._decoders.discard(camera_id)
        out: list[FrameJob] = []
        for wanted, waiting in list(self._waiting.items()):
            out += [job for job in waiting if job.partition == partition]
            left = [job for job in waiting if job.partition != partition]
            if left:
                self._waiting[wanted] = left
            else:
                del self._waiting[wanted]
        return out

    def _await(self, job: FrameJob, wanted: Identity) -> None:
        key_frame = self.held.find(wanted)
        if key_frame is not None:
            self._metrics.keyed_frames["with_key"].inc()
            self._pass_on(job, key_frame)
            return
        if wanted in self._missing:
            self._fail(job, wanted, job.arrived_s)
            return
        self._metrics.keyed_frames["waited"].inc()
        self._waiting.setdefault(wanted, []).append(job)
        place = self.held.place(wanted)
        if place is None:
            while self._unplaced() > self._settings.key_wait_frames:
                self._give_up(self._first_to_give_up())
        elif place not in self._recalling:
            self._recalling.add(place)
            self.recall.request([place])

    def _pass_on(self, job: FrameJob, key_frame: KeyFrame) -> None:
        try:
            check_key_frame(job.frame, key_frame.frame)
        except MalformedError as error:
            job.fail("key", error)
        else:
            job.key_frame = key_frame
            self._use(key_frame, job, job.arrived_s)
        self.next.submit(job)

    def _unplaced(self) -> int:
        return sum(len(each) for wanted, each in self._waiting.items() if self.held.place(wanted) is None)

    def _first_to_give_up(self) -> Identity:
        """Return the oldest missing key frame of the camera with the most frames that wait for missing ones."""
        missing = [wanted for wanted in self._waiting if self.held.place(wanted) is None]
        frames = Counter[CameraId]()
        for wanted in missing:
            frames[wanted.camera_id] += len(self._waiting[wanted])
        return max(missing, key=lambda wanted: frames[wanted.camera_id])

    def _give_up(self, wanted: Identity, now_s: float | None = None) -> None:
        self._missing[wanted] = None
        if len(self._missing) > MAX_CAMERAS:
            self._missing.popitem(last=False)
        for job in self._waiting.pop(wanted, []):
            self._fail(job, wanted, now_s if now_s is not None else job.arrived_s)

    def _fail(self, job: FrameJob, wanted: Identity, now_s: float) -> None:
        self._requests.post(job, now_s)
        self._metrics.keyed_frames["without_key"].inc()
        job.fail("key", NoKeyFrameError(f"key frame {wanted} is missing: the camera is sent a request for a new one"))
        self.next.submit(job)

    # Key frames

    def recalled(self, place: Place, record: ConsumerRecord | None) -> None:
        """Hold the key frame of a record that was read back; None if Kafka has no such record."""
        self._recalling.discard(place)
        key_frame = None
        if record is not None:
            try:
                found = open_record(record, self._keys)
            except WireError:
                pass
            else:
                if is_key_frame(found.frame):
                    key_frame = KeyFrame(found.identity, found.frame, *place, found.sent_ms)
        if key_frame is not None:
            self._metrics.key_frames["recalled"].inc()
            self._arrived(key_frame)
        for wanted in [each for each in self._waiting if self.held.place(each) == place]:
            self._give_up(wanted)
        recall = self._partitions.get(place[0])
        if recall is not None:
            recall.places.discard(place)
            self._end_recall(place[0], recall)

    def restored(self, partition: int, record: ConsumerRecord | None) -> None:
        """Give a record of an open group that was read back to the decoders; None behind the last record.

        Records of a partition that was revoked in the meantime are ignored.
        """
        recall = self._partitions.get(partition)
        if recall is None or not recall.span:
            return
        if record is None:
            recall.span = False
            self._end_recall(partition, recall)
            return
        try:
            found = open_record(record, self._keys)
            if found.frame.profile != VIDEO or found.frame.whole:
                return
            unit = video_unit(found)
        except WireError:
            return
        if is_key_frame(found.frame) and self.held.find(found.identity) is None:
            self._metrics.key_frames["recalled"].inc()
            self._arrived(KeyFrame(found.identity, found.frame, partition, record.offset, found.sent_ms))
        key_frame = self.held.find(found.key_identity)
        if key_frame is not None:
            self._use(key_frame, found, monotonic())
        self._restored[partition].add(found.camera_id)
        self._decoders.restore(unit)

    def note(self, partition: int, before: int) -> str:
        """Return the note for a commit of a partition's offset `before`; see `KeyFrames.note`."""
        return self.held.note(partition, before, self._groups.span(partition, before, monotonic()))

    def recall_partition(self, partition: int, note: str, done: Callable[[], None]) -> bool:
        """Read back the key frames and open groups in the `note` of a partition's commit, then call `done`.

        Returns False, without a call of `done`, if there is nothing to read.
        """
        span = read_span(note)
        places = {(partition, offset) for offset in read_note(note) if offset not in span} - self.held.places()
        if not places and not span:
            return False
        self._partitions[partition] = _Recall(places, bool(span), done)
        self._recalling |= places
        if span:
            self.recall.request_span(partition, span)
        self.recall.request(places)
        return True

    def _end_recall(self, partition: int, recall: _Recall) -> None:
        if not recall.places and not recall.span:
            del self._partitions[partition]
            recall.done()

    def _use(self, key_frame: KeyFrame, job: FrameJob, now_s: float) -> None:
        if key_frame.frame.profile == VIDEO:
            partition, offset, sent_ms = self.held.first_delivery(key_frame)
            age_s = (job.sent_ms - sent_ms) / 1000
            self._groups.use(key_frame.identity, partition, offset, job.offset, now_s, age_s)

    def _hold(self, job: FrameJob) -> None:
        job.key_frame = KeyFrame(job.identity, job.frame, job.partition, job.offset, job.sent_ms)
        self._metrics.key_frames["received"].inc()
        self._arrived(job.key_frame)
        self._use(job.key_frame, job, job.arrived_s)

    def _arrived(self, key_frame: KeyFrame) -> None:
        self.held.put(key_frame)
        self._missing.pop(key_frame.identity, None)
        for job in self._waiting.pop(key_frame.identity, []):
            self._pass_on(job, key_frame)
