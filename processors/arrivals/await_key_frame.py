"""A step of the processor: a frame that depends on a key frame waits until the key frame is there.

For profiles whose frames depend on a key frame (`schemas.messages.frame.KEYED_PROFILES`). Frames of other profiles
pass.

A key frame can be late, if it went through another bridge or is sent again. If it was dropped from memory, it is read
back from Kafka. If it is lost, the step requests a new one from the camera. Number and time of waiting frames are
bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from aiokafka import ConsumerRecord

from processors.arrivals.frames import TakenFrame, open_record
from processors.arrivals.key_frame_recall import Place
from processors.arrivals.key_frames import KeyFrame, KeyFrames, read_note
from processors.arrivals.progress import PartitionProgress
from processors.metrics import ProcessorMetrics
from processors.settings import ProcessorSettings
from schemas.errors import Malformed, NoKeyFrame, WireError
from schemas.identity import Identity
from schemas.keys.keys import KeyRing
from schemas.limits import CAMERAS_AT_HAND
from schemas.messages.frame import check_key_frame, is_key_frame
from schemas.runtime.throttle import Throttle

_REQUEST_AFTER: Final = 0.25
"""Share of a frame's waiting time after which its key frame is requested: one that is merely late comes sooner."""
_REQUEST_AGAIN_S: Final = 2.0


class _Waiting(NamedTuple):
    taken: TakenFrame
    since_s: float


class AwaitKeyFrame:
    """The key frames of this processor and the frames that wait for one. All methods run on the loop's thread."""

    def __init__(
        self,
        settings: ProcessorSettings,
        keys: KeyRing,
        metrics: ProcessorMetrics,
        *,
        ready: Callable[[TakenFrame], None],
        failed: Callable[[TakenFrame, WireError], None],
        request: Callable[[TakenFrame], None],
        recall: Callable[[Sequence[Place]], None],
    ) -> None:
        """Each submitted frame goes to `ready` or to `failed`, once.

        `request` sends the camera a request for the key frame that a frame depends on. `recall` reads records back.
        Each of them comes to `recalled`.
        """
        self.held = KeyFrames(settings.key_cache_bytes)
        self._settings = settings
        self._keys = keys
        self._metrics = metrics
        self._ready = ready
        self._failed = failed
        self._send_request = request
        self._recall = recall
        self._waiting: OrderedDict[Identity, list[_Waiting]] = OrderedDict()
        self._recalling: dict[Place, Identity | None] = {}
        self._partitions: dict[int, tuple[set[Place], Callable[[], None]]] = {}
        self._missing: OrderedDict[Identity, None] = OrderedDict()
        self._requested: Throttle[Identity] = Throttle(_REQUEST_AGAIN_S)

    def __len__(self) -> int:
        """The number of frames that wait."""
        return sum(len(waiting) for waiting in self._waiting.values())

    # Frames

    def submit(self, taken: TakenFrame, now_s: float, *, repeated: bool = False) -> None:
        """Pass a frame on, or let it wait for its key frame. `now_s` is monotonic.

        A `repeated` frame has its verdict already and goes no further. Anyone can replay it, so a repeated key frame is
        held only if frames wait for it.
        """
        if is_key_frame(taken.frame) and (not repeated or taken.identity in self._waiting):
            self._hold(taken)
        if repeated:
            return
        wanted = needed_key(taken)
        if wanted is None:
            self._ready(taken)
        else:
            self._await(taken, wanted, now_s)

    def poll(self, now_s: float) -> None:
        """Request key frames that are late, and fail frames that have waited too long. `now_s` is monotonic."""
        for wanted, waiting in list(self._waiting.items()):
            if self.held.place(wanted) is not None:
                continue
            waited_s = now_s - waiting[0].since_s
            if waited_s >= self._settings.key_wait_s:
                self._give_up(wanted, now_s)
            elif waited_s >= self._settings.key_wait_s * _REQUEST_AFTER:
                self._request(waiting[0].taken, now_s)

    def discard(self, unwanted: Callable[[TakenFrame], bool]) -> list[TakenFrame]:
        """Remove and return the waiting frames for which `unwanted` is true."""
        out: list[TakenFrame] = []
        for wanted, waiting in list(self._waiting.items()):
            out += [each.taken for each in waiting if unwanted(each.taken)]
            left = [each for each in waiting if not unwanted(each.taken)]
            if left:
                self._waiting[wanted] = left
            else:
                del self._waiting[wanted]
        return out

    def _await(self, taken: TakenFrame, wanted: Identity, now_s: float) -> None:
        key_frame = self.held.find(wanted)
        if key_frame is not None:
            self._metrics.keyed_frames["with_key"].inc()
            self._pass_on(taken, key_frame)
            return
        if wanted in self._missing:
            self._fail(taken, wanted, now_s)
            return
        self._metrics.keyed_frames["waited"].inc()
        self._waiting.setdefault(wanted, []).append(_Waiting(taken, now_s))
        place = self.held.place(wanted)
        if place is None:
            while self._unplaced() > self._settings.key_wait_frames:
                self._give_up(next(name for name in self._waiting if self.held.place(name) is None))
        elif place not in self._recalling:
            self._recalling[place] = wanted
            self._recall([place])

    def _pass_on(self, taken: TakenFrame, key_frame: KeyFrame) -> None:
        try:
            check_key_frame(taken.frame, key_frame.frame)
        except Malformed as error:
            self._failed(taken, error)
            return
        taken.key_frame = key_frame
        self._ready(taken)

    def _unplaced(self) -> int:
        return sum(len(each) for wanted, each in self._waiting.items() if self.held.place(wanted) is None)

    def _give_up(self, wanted: Identity, now_s: float | None = None) -> None:
        self._missing[wanted] = None
        if len(self._missing) > CAMERAS_AT_HAND:
            self._missing.popitem(last=False)
        for waiting in self._waiting.pop(wanted, []):
            self._fail(waiting.taken, wanted, now_s if now_s is not None else waiting.since_s)

    def _fail(self, taken: TakenFrame, wanted: Identity, now_s: float) -> None:
        self._request(taken, now_s)
        self._metrics.keyed_frames["without_key"].inc()
        self._failed(taken, NoKeyFrame(f"key frame {wanted} is missing: the camera is sent a request for a new one"))

    def _request(self, taken: TakenFrame, now_s: float) -> None:
        wanted = needed_key(taken)
        if wanted is not None and self._requested.take(wanted, now_s):
            self._metrics.key_frames["requested"].inc()
            self._send_request(taken)

    # Key frames

    def recalled(self, place: Place, record: ConsumerRecord | None) -> None:
        """Hold the key frame of a record that was read back; None if Kafka has no such record."""
        wanted = self._recalling.pop(place, None)
        key_frame = None
        if record is not None:
            try:
                taken = open_record(record, self._keys, PartitionProgress(), 0.0)
            except WireError:
                pass
            else:
                if is_key_frame(taken.frame):
                    key_frame = KeyFrame(taken.identity, taken.frame, *place)
        if key_frame is not None:
            self._metrics.key_frames["recalled"].inc()
            self._arrived(key_frame)
        if wanted is not None and (key_frame is None or key_frame.identity != wanted):
            self._give_up(wanted)
        self._one_recalled(place)

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
        self._recall(sorted(places))
        return True

    def _one_recalled(self, place: Place) -> None:
        places, done = self._partitions.get(place[0], (set(), None))
        places.discard(place)
        if not places and done is not None:
            del self._partitions[place[0]]
            done()

    def _hold(self, taken: TakenFrame) -> None:
        taken.key_frame = KeyFrame(taken.identity, taken.frame, taken.partition, taken.offset)
        self._metrics.key_frames["received"].inc()
        self._arrived(taken.key_frame)

    def _arrived(self, key_frame: KeyFrame) -> None:
        self.held.put(key_frame)
        self._missing.pop(key_frame.identity, None)
        for waiting in self._waiting.pop(key_frame.identity, []):
            self._pass_on(waiting.taken, key_frame)


def needed_key(taken: TakenFrame) -> Identity | None:
    """Return the identity of the key frame that a frame depends on; None if it depends on none."""
    frame = taken.frame
    if not frame.key_distance:
        return None
    return Identity(taken.camera_id, frame.boot_id, frame.seq - frame.key_distance)
