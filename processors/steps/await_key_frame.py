"""The step that waits for key frames: a frame that depends on one passes once it is there.

For profiles whose frames depend on a key frame (`schemas.messages.frame.KEYED_PROFILES`). Frames of other profiles
pass.

A key frame can be late, if it went through another bridge or is sent again. If it was dropped from memory, it is read
back from Kafka. If it is lost, the step requests a new one from the camera. Number and time of waiting frames are
bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from aiokafka import ConsumerRecord

from processors.arrivals.job import FrameJob, open_record
from processors.arrivals.key_frame_recall import KeyFrameRecall, Place
from processors.arrivals.key_frames import KeyFrame, KeyFrames, read_note
from processors.metrics import ProcessorMetrics
from processors.results.delivery import Emitter
from processors.results.records import key_request_record
from processors.settings import ProcessorSettings
from processors.steps.step import Step
from schemas.errors import Malformed, NoKeyFrame, WireError
from schemas.identity import Identity
from schemas.keys.keys import KeyRing
from schemas.limits import CAMERAS_AT_HAND
from schemas.messages.frame import check_key_frame, is_key_frame
from schemas.runtime.throttle import Throttle

_REQUEST_AFTER: Final = 0.25
"""Share of a frame's waiting time after which its key frame is requested: one that is merely late comes sooner."""
_REQUEST_AGAIN_S: Final = 2.0


class AwaitKeyFrame(Step):
    """The key frames of this processor and the frames that wait for one."""

    def __init__(self, settings: ProcessorSettings, keys: KeyRing, emitter: Emitter, metrics: ProcessorMetrics) -> None:
        self.held = KeyFrames(settings.key_cache_bytes)
        self.recall = KeyFrameRecall(settings.kafka, settings.frames_topic, self.recalled)
        """The task that reads key frames back."""
        self._settings = settings
        self._keys = keys
        self._emitter = emitter
        self._metrics = metrics
        self._waiting: OrderedDict[Identity, list[FrameJob]] = OrderedDict()
        self._recalling: dict[Place, Identity | None] = {}
        self._partitions: dict[int, tuple[set[Place], Callable[[], None]]] = {}
        self._missing: OrderedDict[Identity, None] = OrderedDict()
        self._requested: Throttle[Identity] = Throttle(_REQUEST_AGAIN_S)

    def __len__(self) -> int:
        """The number of frames that wait."""
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
        wanted = needed_key(job) if job.verdict is None else None
        if wanted is None:
            self.next.submit(job)
        else:
            self._await(job, wanted)

    def poll(self, now_s: float) -> None:
        """Request key frames that are late, and fail frames that have waited too long."""
        for wanted, waiting in list(self._waiting.items()):
            if self.held.place(wanted) is not None:
                continue
            waited_s = now_s - waiting[0].arrived_s
            if waited_s >= self._settings.key_wait_s:
                self._give_up(wanted, now_s)
            elif waited_s >= self._settings.key_wait_s * _REQUEST_AFTER:
                self._request(waiting[0], now_s)

    def discard(self, partition: int) -> list[FrameJob]:
        """Remove and return the waiting frames of a partition."""
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
                self._give_up(next(name for name in self._waiting if self.held.place(name) is None))
        elif place not in self._recalling:
            self._recalling[place] = wanted
            self.recall.want([place])

    def _pass_on(self, job: FrameJob, key_frame: KeyFrame) -> None:
        try:
            check_key_frame(job.frame, key_frame.frame)
        except Malformed as error:
            job.fail("key", error)
        else:
            job.key_frame = key_frame
        self.next.submit(job)

    def _unplaced(self) -> int:
        return sum(len(each) for wanted, each in self._waiting.items() if self.held.place(wanted) is None)

    def _give_up(self, wanted: Identity, now_s: float | None = None) -> None:
        self._missing[wanted] = None
        if len(self._missing) > CAMERAS_AT_HAND:
            self._missing.popitem(last=False)
        for job in self._waiting.pop(wanted, []):
            self._fail(job, wanted, now_s if now_s is not None else job.arrived_s)

    def _fail(self, job: FrameJob, wanted: Identity, now_s: float) -> None:
        self._request(job, now_s)
        self._metrics.keyed_frames["without_key"].inc()
        job.fail("key", NoKeyFrame(f"key frame {wanted} is missing: the camera is sent a request for a new one"))
        self.next.submit(job)

    def _request(self, job: FrameJob, now_s: float) -> None:
        wanted = needed_key(job)
        if wanted is not None and self._requested.take(wanted, now_s):
            self._metrics.key_frames["requested"].inc()
            self._emitter.post(self._settings.events_topic, [key_request_record(job)])

    # Key frames

    def recalled(self, place: Place, record: ConsumerRecord | None) -> None:
        """Hold the key frame of a record that was read back; None if Kafka has no such record."""
        wanted = self._recalling.pop(place, None)
        key_frame = None
        if record is not None:
            try:
                found = open_record(record, self._keys)
            except WireError:
                pass
            else:
                if is_key_frame(found.frame):
                    key_frame = KeyFrame(found.identity, found.frame, *place)
        if key_frame is not None:
            self._metrics.key_frames["recalled"].inc()
            self._arrived(key_frame)
        if wanted is not None and (key_frame is None or key_frame.identity != wanted):
            self._give_up(wanted)
        self._one_recalled(place)

    def note(self, partition: int, before: int) -> str:
        """Return the note for a commit of a partition's offset `before`; see `KeyFrames.note`."""
        return self.held.note(partition, before)

    def recall_partition(self, partition: int, note: str, done: Callable[[], None]) -> bool:
        """Read back the key frames in the `note` of a partition's commit, then call `done`.

        Returns False, without a call of `done`, if there is nothing to read.
        """
        places = {(partition, offset) for offset in read_note(note)} - self.held.places()
        if not places:
            return False
        self._partitions[partition] = (places, done)
        for place in places:
            self._recalling.setdefault(place, None)
        self.recall.want(places)
        return True

    def _one_recalled(self, place: Place) -> None:
        places, done = self._partitions.get(place[0], (set(), None))
        places.discard(place)
        if not places and done is not None:
            del self._partitions[place[0]]
            done()

    def _hold(self, job: FrameJob) -> None:
        job.key_frame = KeyFrame(job.identity, job.frame, job.partition, job.offset)
        self._metrics.key_frames["received"].inc()
        self._arrived(job.key_frame)

    def _arrived(self, key_frame: KeyFrame) -> None:
        self.held.put(key_frame)
        self._missing.pop(key_frame.identity, None)
        for job in self._waiting.pop(key_frame.identity, []):
            self._pass_on(job, key_frame)


def needed_key(job: FrameJob) -> Identity | None:
    """Return the identity of the key frame that a frame depends on; None if it depends on none."""
    frame = job.frame
    if not frame.key_distance:
        return None
    return Identity(job.camera_id, frame.boot_id, frame.seq - frame.key_distance)
