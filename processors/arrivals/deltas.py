"""Frames that name a key frame: who has it goes on, who has not waits, and what waited in vain is given up.

A key frame can be late, when it went through another bridge or is sent again; it can have given way to others, and is
read back from Kafka; or it is lost, and the camera is asked for a new one. Waiting is bounded in number and time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from aiokafka import ConsumerRecord

from processors.arrivals.frames import TakenFrame, open_record
from processors.arrivals.key_frames import KeyFrame, KeyFrames, read_note
from processors.arrivals.key_recall import Place
from processors.arrivals.progress import PartitionProgress
from processors.metrics import ProcessorMetrics
from processors.settings import ProcessorSettings
from schemas.errors import Malformed, NoKeyFrame, WireError
from schemas.frame import check_names_key, is_key_frame
from schemas.identity import Identity
from schemas.keys import KeyRing
from schemas.limits import CAMERAS_AT_HAND
from schemas.runtime.throttle import Throttle

_ASK_AFTER: Final = 0.25
"""Of the time that a frame waits: a key frame that is merely late comes sooner."""
_ASK_AGAIN_S: Final = 2.0


class _Waiting(NamedTuple):
    taken: TakenFrame
    since_s: float


class Deltas:
    """The key frames of this processor and the frames that wait for one. All methods run on the loop's thread."""

    def __init__(
        self,
        settings: ProcessorSettings,
        keys: KeyRing,
        metrics: ProcessorMetrics,
        *,
        ready: Callable[[TakenFrame], None],
        failed: Callable[[TakenFrame, WireError], None],
        ask: Callable[[TakenFrame], None],
        recall: Callable[[Sequence[Place]], None],
    ) -> None:
        """`ready` and `failed` get each frame once; `ask` requests the key frame that a frame names, `recall` reads
        records back, each of which comes to `recalled`."""
        self.held = KeyFrames(settings.key_cache_bytes)
        self._settings = settings
        self._keys = keys
        self._metrics = metrics
        self._ready = ready
        self._failed = failed
        self._ask = ask
        self._recall = recall
        self._waiting: OrderedDict[Identity, list[_Waiting]] = OrderedDict()
        self._recalling: dict[Place, Identity | None] = {}
        self._partitions: dict[int, tuple[set[Place], Callable[[], None]]] = {}
        self._missed: OrderedDict[Identity, None] = OrderedDict()
        self._asked: Throttle[Identity] = Throttle(_ASK_AGAIN_S)

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self._waiting.values())

    # Key frames

    def take_key(self, taken: TakenFrame, repeated: bool) -> None:
        """A key frame came; a `repeated` one, which anyone can replay, must not push others out."""
        if repeated and taken.identity not in self._waiting:
            return
        key_frame = KeyFrame(taken.identity, taken.key, taken.frame, taken.partition, taken.offset)
        taken.key_frame = key_frame
        self._metrics.key_frames["taken"].inc()
        self._arrived(key_frame)

    def recalled(self, place: Place, record: ConsumerRecord | None) -> None:
        """A record was read back, or cannot be."""
        wanted = self._recalling.pop(place, None)
        key_frame = None
        if record is not None:
            try:
                taken = open_record(record, self._keys, PartitionProgress(), 0.0)
            except WireError:
                pass
            else:
                if is_key_frame(taken.frame):
                    key_frame = KeyFrame(taken.identity, taken.key, taken.frame, *place)
        if key_frame is not None:
            self._metrics.key_frames["read_back"].inc()
            self._arrived(key_frame)
        if wanted is not None and (key_frame is None or key_frame.identity != wanted):
            self._give_up(wanted)
        self._one_recalled(place)

    def recall_partition(self, partition: int, note: str, done: Callable[[], None]) -> bool:
        """Read back what the `note` of a partition's commit names, then call `done`; false when there is nothing."""
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

    def _arrived(self, key_frame: KeyFrame) -> None:
        self.held.put(key_frame)
        self._missed.pop(key_frame.identity, None)
        for waiting in self._waiting.pop(key_frame.identity, []):
            self._go_on(waiting.taken, key_frame)

    # Frames that name one

    def take(self, taken: TakenFrame, now_s: float) -> None:
        """A delta came: it goes on, waits or fails."""
        wanted = named(taken)
        key_frame = self.held.find(wanted)
        if key_frame is not None:
            self._metrics.delta_frames["with_key"].inc()
            self._go_on(taken, key_frame)
            return
        if wanted in self._missed:
            self._miss(taken, now_s)
            return
        self._metrics.delta_frames["waited"].inc()
        self._waiting.setdefault(wanted, []).append(_Waiting(taken, now_s))
        place = self.held.place(wanted)
        if place is None:
            while self._unplaced() > self._settings.key_wait_frames:
                self._give_up(next(name for name in self._waiting if self.held.place(name) is None))
        elif place not in self._recalling:
            self._recalling[place] = wanted
            self._recall([place])

    def tick(self, now_s: float) -> None:
        """Ask for key frames that are late, and give up what waited too long. `now_s` is monotonic."""
        for wanted, waiting in list(self._waiting.items()):
            if self.held.place(wanted) is not None:
                continue
            waited_s = now_s - waiting[0].since_s
            if waited_s >= self._settings.key_wait_s:
                self._give_up(wanted, now_s)
            elif waited_s >= self._settings.key_wait_s * _ASK_AFTER:
                self._request(waiting[0].taken, now_s)

    def discard(self, unwanted: Callable[[TakenFrame], bool]) -> list[TakenFrame]:
        """Take out and return the waiting frames of which `unwanted` is true."""
        out: list[TakenFrame] = []
        for wanted, waiting in list(self._waiting.items()):
            out += [each.taken for each in waiting if unwanted(each.taken)]
            left = [each for each in waiting if not unwanted(each.taken)]
            if left:
                self._waiting[wanted] = left
            else:
                del self._waiting[wanted]
        return out

    def _go_on(self, taken: TakenFrame, key_frame: KeyFrame) -> None:
        try:
            check_names_key(taken.frame, key_frame.frame)
        except Malformed as error:
            self._failed(taken, error)
            return
        taken.key_frame = key_frame
        self._ready(taken)

    def _unplaced(self) -> int:
        return sum(len(each) for wanted, each in self._waiting.items() if self.held.place(wanted) is None)

    def _give_up(self, wanted: Identity, now_s: float | None = None) -> None:
        self._missed[wanted] = None
        if len(self._missed) > CAMERAS_AT_HAND:
            self._missed.popitem(last=False)
        for waiting in self._waiting.pop(wanted, []):
            self._miss(waiting.taken, now_s if now_s is not None else waiting.since_s)

    def _miss(self, taken: TakenFrame, now_s: float) -> None:
        self._request(taken, now_s)
        self._metrics.delta_frames["without_key"].inc()
        self._failed(taken, NoKeyFrame(f"expected the key frame {named(taken)}, which is not there"))

    def _request(self, taken: TakenFrame, now_s: float) -> None:
        if not self._asked.take(named(taken), now_s):
            return
        self._metrics.key_frames["asked"].inc()
        self._ask(taken)


def named(taken: TakenFrame) -> Identity:
    """The identity of the key frame that a delta names."""
    return Identity(taken.camera_id, taken.frame.boot_id, taken.frame.seq - taken.frame.key_distance)
