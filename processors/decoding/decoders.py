"""The decoders of all cameras' video: units in any order become pictures, each by a future.

A group's units are decoded in the order of their places. A unit that comes too early waits for those before it, within
a bound. Then the rest of the group fails by name. A unit that does not decode, or ends its process, costs its group.
After any of these failures, a key frame of the camera is due. If a unit of a camera is rejected or ends a process, the
camera is a suspect for an hour: its groups are decoded in a process of their own, with a lower priority.

While a process does not answer, it keeps its camera alone. Another process, which waits for this, takes over the other
cameras, and opens their decoders with the held units of their groups.

If no process can be started, no unit fails: all wait, and the start is tried again about once a second.
"""

from __future__ import annotations

import math
import os
import threading
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from zlib import crc32

import structlog

from processors.decoding.lane import GROUPS_PER_CAMERA, Group, Job, Lane, Patience, Precedence
from processors.decoding.process import DecodingProcess
from processors.decoding.starter import ProcessStarter
from schemas.errors import MalformedError, MissingReferenceError, OverSizeError
from schemas.identity import CameraId
from schemas.limits import MAX_CAMERAS, MAX_GROUP_FRAMES, USUAL_FRAME_PIXELS
from schemas.messages.access_unit import AccessUnit
from schemas.messages.frame_size import over_size
from schemas.pixels.planes import Planes

log = structlog.get_logger()

_SUSPECTS: Final = -1
_SUSPECT_S: Final = 3600.0
"""Seconds since a camera's last failure after which its next group is decoded with those of others again."""
_SUSPECTS_NICE: Final = 10
"""Nice levels of the process for suspects below the processor: it takes a tenth of a core that others need."""
YIELD_S: Final = 0.005
"""Longest wait of a suspect's unit for the units of usual cameras."""
_KEPT: Final = 2
"""Most lanes at a time that are kept by one camera each: each of them is one more process."""
_SHARE_OF_ONE: Final = 1 / 4
"""Share of the held bytes above which a group loses its own units first."""
_LONGEST_GROUP_S: Final = 60.0
"""Seconds of the longest group of the settings: for this long, the units of a restored group are needed, and a group
without a frame may be the live one."""

WaitedS = Callable[[CameraId, float], float]


class VideoUnit(NamedTuple):
    """A verified frame of the profile `video`, with its access unit opened."""

    camera_id: CameraId
    boot_id: int
    seq: int
    key_seq: int
    """Sequence number of its group's key frame."""
    place: int
    captured_ms: int
    whole: bool
    height: int
    width: int
    unit: AccessUnit


@dataclass(frozen=True)
class DecodingSettings:
    """The limits of decoding."""

    processes: int = 1
    """Processes besides the one for suspects."""
    most_pixels: int = USUAL_FRAME_PIXELS
    """Largest picture, height × width."""
    timeout_s: float = 2.0
    """Longest time for one unit."""
    patience_s: float = 0.2
    """Time for one unit, at least, after which another process takes over the other cameras."""
    wait_s: float = 2.0
    """Longest wait for an earlier unit of a group."""
    wait_units: int = 32
    """Most units of a camera that wait."""
    held_bytes: int = 256 * 2**20
    """Units of open groups in memory, with which closed decoders are opened again. Groups with frames under way may
    take twice as much."""
    open_pixels: int = 33 * 2**20
    """Sum of the sizes of a process's open decoders: each counts with its picture and `DECODER_PIXELS`."""
    process_bytes: int = 2**30
    """Memory of a process's decoders."""
    unconfined: bool = False
    """Whether processes without a filter of system calls are used as well."""


class _QueuedUnit(NamedTuple):
    unit: VideoUnit
    since_s: float
    done: Future[Planes]


@dataclass(eq=False)
class _Chain:
    """A group, and the units of it that wait."""

    group: Group
    captured_ms: int
    """Capture time of the unit that came first. The live group of a camera has the latest of those in use."""
    used_s: float
    """Time of its last unit. A clock that was ahead leaves a late capture time, but no more units."""
    seqs: list[int] = field(default_factory=list)
    """Sequence numbers of the frames at the places 0, 1, …"""
    held: int = 0
    waiting: dict[int, _QueuedUnit] = field(default_factory=dict)
    ahead: dict[int, VideoUnit] = field(default_factory=dict)
    """Restored units that came before the units of lower places."""
    under_way: dict[int, Future[Planes]] = field(default_factory=dict)
    gave_up: bool = False
    restored_s: float | None = None
    """Time at which the last unit was restored; None once a later one has come. It needs all of them: no decoder is
    open."""
    displaced: bool = False
    """True once later groups have displaced it: its units are dropped when no frame of it is under way."""

    @property
    def next(self) -> int:
        """The place of the next frame."""
        return len(self.seqs)

    def seq_at(self, place: int) -> int | None:
        """Return the sequence number of the frame at a place; None if no frame has come there."""
        if place < self.next:
            return self.seqs[place]
        waiting = self.waiting.get(place)
        return None if waiting is None else waiting.unit.seq

    def is_needed(self, now_s: float) -> bool:
        """Return whether its units are needed soon: for frames under way, or for the next one after a takeover."""
        return bool(self.under_way) or (self.restored_s is not None and now_s - self.restored_s < _LONGEST_GROUP_S)

    def drop_units(self) -> None:
        """Drop the units, with which a closed decoder is opened again, unless frames under way may need them."""
        if not self.under_way:
            self.group.units = None


class VideoDecoders:
    """Decoders in order.

    `submit`, `poll`, `discard` and `close` are called on one thread. Futures are set on other threads.
    """

    def __init__(
        self,
        settings: DecodingSettings | None = None,
        *,
        start: Callable[[int, int], DecodingProcess] = DecodingProcess,
    ) -> None:
        """`start` returns a new process, given its most pixels and bytes."""
        self._settings = settings or DecodingSettings()
        limits = self._settings.most_pixels, self._settings.process_bytes
        self._starter = ProcessStarter(lambda: start(*limits), unconfined=self._settings.unconfined)
        self._counts: Counter[str] = Counter()
        self._changing = threading.Lock()
        self._chains: defaultdict[CameraId, OrderedDict[tuple[int, int], _Chain]] = defaultdict(OrderedDict)
        self._by_use: OrderedDict[_Chain, None] = OrderedDict()
        self._incomplete: dict[_Chain, None] = {}
        self._held = 0
        self._now_s = 0.0
        """Time of the last `poll`."""
        self._suspects: OrderedDict[CameraId, float] = OrderedDict()
        """The time of the last failure of each suspect."""
        self._lanes: dict[int, Lane] = {}
        self._kept: dict[CameraId, Lane] = {}
        """Lanes whose process does not answer for now, by the camera that occupies it."""
        self._patience = Patience(self._settings.patience_s, self._settings.timeout_s)
        self._usual = Precedence()
        self.stalled_s = -math.inf
        """Time of the last `poll` at which no process could be started. Waits for other frames begin again then: the
        frames that wait for a process keep later ones unread."""
        self._closed = False

    @property
    def counts(self) -> dict[str, int]:
        """Units by outcome: decoded, restored, duplicate, missing, refused, crashed, hung; and reopened decoders."""
        with self._changing:
            return dict(self._counts)

    @property
    def start_failure(self) -> str:
        """The error because of which a lane has no process; empty if none waits for one."""
        return self._starter.failure

    @property
    def held_bytes(self) -> int:
        """Bytes of the held units."""
        return self._held

    @property
    def waiting(self) -> dict[CameraId, int]:
        """Units that wait for an earlier one, by camera."""
        found: Counter[CameraId] = Counter()
        for chain in self._incomplete:
            found[chain.group.camera_id] += len(chain.waiting)
        return found

    def submit(self, unit: VideoUnit, now_s: float) -> Future[Planes]:
        """Return the future picture of a unit; `now_s` is monotonic.

        It fails with `OverSizeError`, `MalformedError`, `BadPixelsError`, `MissingReferenceError` or
        `DecoderLostError`. A unit that is under way gives the same future again. A unit that was decoded before is
        decoded again.
        """
        done: Future[Planes] = Future()
        if unit.height * unit.width > self._settings.most_pixels:
            done.set_exception(OverSizeError(over_size(unit.width, unit.height, self._settings.most_pixels)))
            return done
        if unit.whole:
            name = f"probe {unit.camera_id}/{unit.boot_id}/{unit.seq}"
            self._enqueue(Group(unit.camera_id, name, unit.height, unit.width), None, unit.unit, done)
            return done
        chain = self._chain(unit)
        if not _matches_group(chain, unit):
            group = chain.group
            done.set_exception(
                MalformedError(
                    f"{group.name}: expected {group.width}x{group.height} and at most {MAX_GROUP_FRAMES} frames, "
                    f"got {unit.width}x{unit.height} at place {unit.place}"
                )
            )
            return done
        known = chain.seq_at(unit.place)
        if known not in (None, unit.seq):
            # Repeated places would decode the group again for each such frame.
            where = f"{chain.group.name}, place {unit.place}"
            done.set_exception(MalformedError(f"{where}: expected frame {known}, which has come, got {unit.seq}"))
            return done
        if unit.place in chain.waiting:
            return chain.waiting[unit.place].done
        if unit.place < chain.next:
            return self._resubmit(chain, unit, done)
        if unit.place > chain.next:
            if chain.gave_up:
                done.set_exception(self._missing(chain))
            else:
                self._wait(chain, _QueuedUnit(unit, now_s, done))
            return done
        self._pass_on(chain, unit, done)
        self._pass_waiting(chain)
        return done

    def restore(self, unit: VideoUnit, *, displace: bool = True) -> None:
        """Hold a unit that was decoded before, here or elsewhere, for the later units of its group.

        Nothing is decoded now. `displace` allows that the first unit of a group ends an earlier group of the camera.
        If the units of groups that are needed fill the memory, this group is given up: its later units fail by name.
        """
        chains = self._chains[unit.camera_id]
        if not displace and (unit.boot_id, unit.key_seq) not in chains and len(chains) >= GROUPS_PER_CAMERA:
            return
        chain = self._chain(unit)
        if not _matches_group(chain, unit) or unit.place < chain.next or len(chain.ahead) >= self._settings.wait_units:
            return
        if chain.gave_up or unit.place in chain.ahead:
            return
        if not self._make_room_for(chain, len(unit.unit.data)):
            self._refuse(chain)
            return
        chain.ahead[unit.place] = unit
        self._count_held(chain, len(unit.unit.data))
        self._pass_waiting(chain)

    def poll(self, now_s: float, waited_s: WaitedS | None = None) -> None:
        """Fail the units that have waited too long for an earlier one. `now_s` is monotonic.

        `waited_s` returns the seconds that count of those since the arrival of a camera's unit; None counts all.
        """
        self._now_s = now_s
        if self.start_failure:
            self.stalled_s = now_s
        for chain in list(self._incomplete):
            since_s = max(self.stalled_s, min(each.since_s for each in chain.waiting.values()))
            waited = now_s - since_s if waited_s is None else waited_s(chain.group.camera_id, since_s)
            if waited >= self._settings.wait_s:
                self._give_up(chain)

    def give_up(self, camera_id: CameraId) -> None:
        """Fail the waiting units of one group of a camera: the group whose units began to wait first."""
        self._give_up(next(chain for chain in self._incomplete if chain.group.camera_id == camera_id))

    def discard(self, camera_id: CameraId) -> None:
        """Forget a camera's groups; their waiting units are cancelled."""
        for chain in self._chains.pop(camera_id, {}).values():
            for waiting in chain.waiting.values():
                waiting.done.cancel()
            self._forget(chain)

    def close(self) -> None:
        """End all processes. Units that are not decoded are cancelled."""
        for camera_id in list(self._chains):
            self.discard(camera_id)
        with self._changing:
            self._closed = True
            lanes = [*self._lanes.values(), *self._kept.values()]
        for lane in lanes:
            lane.close()
        self._starter.close()

    def _chain(self, unit: VideoUnit) -> _Chain:
        chains, key = self._chains[unit.camera_id], (unit.boot_id, unit.key_seq)
        chain = chains.get(key)
        if chain is None:
            name = f"group {unit.camera_id}/{unit.boot_id}/{unit.key_seq}"
            group = Group(unit.camera_id, name, unit.height, unit.width)
            chain = chains[key] = _Chain(group, unit.captured_ms, self._now_s)
            if len(chains) > GROUPS_PER_CAMERA:
                # Replayed groups displace each other. Boots have no order: only the capture time names the live group.
                used = (each for each in chains if self._now_s - chains[each].used_s < _LONGEST_GROUP_S)
                live = max(used, key=lambda each: (chains[each].captured_ms, each))
                displaced = chains.pop(next(each for each in chains if each != live))
                self._fail_waiting(displaced)
                self._displace(displaced)
        chains.move_to_end(key)
        chain.used_s = self._now_s
        return chain

    def _forget(self, chain: _Chain) -> None:
        self._drop_units(chain)
        self._by_use.pop(chain, None)
        self._incomplete.pop(chain, None)

    def _displace(self, chain: _Chain) -> None:
        """Forget a group, but let its frames under way be decoded: a takeover submits several groups at once."""
        self._held -= chain.held
        chain.held = 0
        chain.ahead.clear()
        self._by_use.pop(chain, None)
        self._incomplete.pop(chain, None)
        chain.displaced = True
        chain.drop_units()

    def _drop_units(self, chain: _Chain) -> None:
        self._held -= chain.held
        chain.held = 0
        chain.ahead.clear()
        chain.group.units = None

    def _count_held(self, chain: _Chain, size: int) -> None:
        chain.held += size
        self._held += size
        self._by_use[chain] = None
        self._by_use.move_to_end(chain)

    def _resubmit(self, chain: _Chain, unit: VideoUnit, done: Future[Planes]) -> Future[Planes]:
        under_way = chain.under_way.get(unit.place)
        self._count("duplicate")
        if under_way is not None and not under_way.done():
            return under_way
        self._enqueue(chain.group, unit.place, _copied(unit.unit), done)
        return done

    def _wait(self, chain: _Chain, waiting: _QueuedUnit) -> None:
        chain.waiting[waiting.unit.place] = waiting
        self._incomplete[chain] = None
        camera_id = chain.group.camera_id
        if sum(len(each.waiting) for each in self._chains[camera_id].values()) > self._settings.wait_units:
            self.give_up(camera_id)

    def _give_up(self, chain: _Chain) -> None:
        self._fail_waiting(chain)
        self._incomplete.pop(chain, None)
        chain.gave_up = True

    def _fail_waiting(self, chain: _Chain) -> None:
        for waiting in chain.waiting.values():
            waiting.done.set_exception(self._missing(chain))
        chain.waiting.clear()

    def _missing(self, chain: _Chain) -> MissingReferenceError:
        self._count("missing")
        return MissingReferenceError(f"{chain.group.name}: the frame at place {chain.next} is missing")

    def _pass_waiting(self, chain: _Chain) -> None:
        """Pass on the waiting units, and hold the restored ones, whose earlier units have all come."""
        while True:
            waiting, ahead = chain.waiting.pop(chain.next, None), chain.ahead.pop(chain.next, None)
            if ahead is not None:
                self._count_held(chain, -len(ahead.unit.data))
            if waiting is not None:
                self._pass_on(chain, waiting.unit, waiting.done)
            elif ahead is None:
                break
            elif self._make_room_for(chain, len(ahead.unit.data)):
                self._keep_unit(chain, ahead)
                chain.restored_s = self._now_s
                self._count("restored")
            else:
                self._refuse(chain)
        if not chain.waiting:
            self._incomplete.pop(chain, None)

    def _pass_on(self, chain: _Chain, unit: VideoUnit, done: Future[Planes]) -> None:
        chain.under_way[unit.place] = done
        own = self._keep_unit(chain, unit)
        chain.restored_s = None

        def passed(_: Future[Planes]) -> None:
            # Otherwise, each group would hold a picture. It runs on another thread: single operations of a dict.
            chain.under_way.pop(unit.place, None)
            if chain.displaced:
                chain.drop_units()

        done.add_done_callback(passed)
        self._enqueue(chain.group, unit.place, own, done)

    def _keep_unit(self, chain: _Chain, unit: VideoUnit) -> AccessUnit:
        """Hold the next unit of a group, and return it with its own memory."""
        chain.seqs.append(unit.seq)
        own = _copied(unit.unit)
        if chain.group.units is not None:
            chain.group.units.append(own)
        self._count_held(chain, len(own.data) if chain.group.units is not None else 0)
        most = self._settings.held_bytes
        if self._held > most and chain.held > most * _SHARE_OF_ONE:
            self._drop_units(chain)
        self._make_room(chain, most, needed=False)
        self._make_room(chain, 2 * most, needed=True)
        return own

    def _make_room_for(self, chain: _Chain, size: int) -> bool:
        """Make room for a restored unit, and return whether there is."""
        self._make_room(chain, self._settings.held_bytes - size, needed=False)
        return self._held + size <= self._settings.held_bytes

    def _make_room(self, current: _Chain, most: int, *, needed: bool) -> None:
        """Drop the units of the least recently used groups, but not of the current one, until all take `most` bytes.

        Groups whose units are needed soon are included only if `needed`.
        """
        if self._held <= most:
            return
        for chain in list(self._by_use):
            if chain is not current and (needed or not chain.is_needed(self._now_s)):
                if chain.ahead:  # later units would wait for those in vain
                    self._refuse(chain)
                else:
                    del self._by_use[chain]
                    self._drop_units(chain)
                if self._held <= most:
                    break

    def _refuse(self, chain: _Chain) -> None:
        log.warning("group_not_restored", group=chain.group.name, held_bytes=self._held)
        chain.restored_s = None
        self._give_up(chain)
        self._drop_units(chain)
        self._by_use.pop(chain, None)

    def _enqueue(self, group: Group, place: int | None, unit: AccessUnit, done: Future[Planes]) -> None:
        with self._changing:
            failed_s = self._suspects.get(group.camera_id)
            if failed_s is not None and not place and self._now_s - failed_s >= _SUSPECT_S:
                del self._suspects[group.camera_id]
            if group.camera_id not in self._suspects:
                self._usual.add(done)
            self._assign(Job(group, place, unit, done))

    def _assign(self, job: Job) -> None:
        """Put a job into the lane of its camera. The caller holds the lock."""
        camera_id = job.group.camera_id
        lane = self._kept.get(camera_id)
        if lane is None:
            suspect = camera_id in self._suspects
            lane = self._lane(_SUSPECTS if suspect else crc32(camera_id.encode()) % self._settings.processes)
        lane.put([job])

    def _lane(self, number: int) -> Lane:
        lane = self._lanes.get(number)
        if lane is None:
            lane = self._lanes[number] = Lane(
                number,
                lambda: self._start_process(number),
                self._count,
                self._suspect,
                self._split_lane,
                self._reassign_rest,
                before=self._yield if number == _SUSPECTS else lambda: None,
                patience=self._patience,
                timeout_s=self._settings.timeout_s,
                open_pixels=self._settings.open_pixels,
            )
        return lane

    def _yield(self) -> None:
        self._usual.wait(YIELD_S)

    def _start_process(self, number: int) -> DecodingProcess:
        """Return a ready process for a lane. Called on the lane's thread. Raises `StartError`."""
        return self._starter.start(number, _reduce_priority if number == _SUSPECTS else None)

    def _split_lane(self, lane: Lane, camera_id: CameraId) -> None:
        """Give the other cameras of a slow lane to a new one. Called on the lane's thread."""
        with self._changing:
            if self._closed or camera_id in self._kept or len(self._kept) >= _KEPT:
                return
            self._kept[camera_id] = self._lanes.pop(lane.number)
            for job in lane.restrict_to(camera_id):
                self._assign(job)
        log.warning("decoding_lane_relieved", camera_id=camera_id)

    def _reassign_rest(self, lane: Lane) -> None:
        """Assign the remaining jobs of a lane that was relieved. Called on the lane's thread at its end."""
        with self._changing:
            self._kept = {camera_id: each for camera_id, each in self._kept.items() if each is not lane}
            if not self._closed:
                for job in lane.pop_rest():
                    self._assign(job)

    def _count(self, outcome: str) -> None:
        with self._changing:
            self._counts[outcome] += 1

    def _suspect(self, group: Group) -> None:
        """Decode the camera's later groups apart from others, for an hour at least."""
        with self._changing:
            self._suspects[group.camera_id] = self._now_s
            self._suspects.move_to_end(group.camera_id)
            if len(self._suspects) > MAX_CAMERAS:
                self._suspects.popitem(last=False)


def _matches_group(chain: _Chain, unit: VideoUnit) -> bool:
    return (chain.group.height, chain.group.width) == (unit.height, unit.width) and unit.place < MAX_GROUP_FRAMES


def _reduce_priority(process: DecodingProcess) -> None:
    """Give a process a lower priority than the processor's. Raises OSError if it has ended."""
    try:
        os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + _SUSPECTS_NICE)
    except OSError:
        process.kill()
        raise


def _copied(unit: AccessUnit) -> AccessUnit:
    return unit._replace(data=bytes(unit.data))
