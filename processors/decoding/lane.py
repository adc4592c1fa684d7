"""A decoding process with its thread: cameras share its CPU time, and decoders are opened and closed within a bound.

If a decoder was closed, or its process was replaced, it is opened again with the earlier units of its group.

A process that does not answer for now holds one camera's unit. The lane then keeps this camera only, and ends with that
unit: another lane takes the other cameras.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future
from itertools import count
from typing import Final, NamedTuple

import structlog

from processors.decoding.process import DecodingProcess, ProcessLost, SlowCallback, StartError
from processors.decoding.protocol import Operation
from processors.decoding.sandbox import CPU_S
from processors.time_shares import TimeShares
from schemas.errors import BadPixelsError, DecoderLostError, MissingReferenceError, WireError
from schemas.identity import CameraId
from schemas.messages.access_unit import AccessUnit
from schemas.pixels.planes import Planes
from schemas.transport.backoff import Backoff

log = structlog.get_logger()

DECODER_PIXELS: Final = 2**15
"""Pixels for which an open decoder counts besides its picture: it takes .6 MiB even for the smallest one."""
_IDLE_TURNS: Final = 4
"""Turns for each open decoder after which a decoder that had none counts as idle."""
_UNITS_OF_A_PROCESS: Final = 500_000
"""Units after which a process is replaced."""
_LEAST_S: Final = 1e-4
"""Seconds that a unit counts for at least, so that no camera has all turns."""
_USED_S: Final = CPU_S / 2
"""CPU seconds after which a process is replaced: at `CPU_S`, the kernel would end it, and its camera would count as a
suspect."""
GROUPS_PER_CAMERA: Final = 3
"""Open groups of a camera: resent frames of a group may come after the key frame of the next."""


class Group:
    """One group of pictures. `units` and `failure` are shared between the threads."""

    def __init__(self, camera_id: CameraId, name: str, height: int, width: int) -> None:
        """`name` stands in messages."""
        self.camera_id = camera_id
        self.name = name
        self.height = height
        self.width = width
        self.units: list[AccessUnit] | None = []
        """Units of the places 0, 1, …; None if they were dropped to save memory."""
        self.failure: WireError | None = None
        """The reason why no later unit of it decodes."""


class Job(NamedTuple):
    """One unit to decode."""

    group: Group
    place: int | None
    """None for a unit that belongs to no group."""
    unit: AccessUnit
    done: Future[Planes]


class Patience:
    """The seconds after which a process counts as slow. Shared by lanes; a lost update does no harm.

    A machine that is short of time makes many processes slow, and another process would make it worse. So each process
    that answers after all doubles the seconds. Quick answers bring them back.
    """

    CALMS: Final = 0.999
    """Factor by which a quick answer reduces the seconds: 700 of them halve them."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self.seconds = first_s

    def answered(self, slow: bool) -> None:
        """Note an answer."""
        if slow:
            self.seconds = min(self._longest_s, 2 * self.seconds)
        elif self.seconds > self._first_s:
            self.seconds = max(self._first_s, self.CALMS * self.seconds)


class Precedence:
    """The units of usual cameras that are not decoded yet, for which others wait within a bound."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._pending = 0

    def add(self, done: Future[Planes]) -> None:
        """Count a unit until its future is done."""
        with self._change:
            self._pending += 1
        done.add_done_callback(self._end)

    def wait(self, most_s: float) -> None:
        """Wait until no unit is pending, at most this long."""
        with self._change:
            self._change.wait_for(lambda: not self._pending, most_s)

    def _end(self, _: Future[Planes]) -> None:
        with self._change:
            self._pending -= 1
            if not self._pending:
                self._change.notify_all()


class _OpenDecoder:
    """An open decoder: its number in the process, the place of the unit that it takes next, and its last turn."""

    def __init__(self, number: int, group: Group) -> None:
        self.number = number
        self.group = group
        self.next = 0
        self.turn = 0


class Lane:
    """One thread and its process."""

    def __init__(
        self,
        number: int,
        start: Callable[[], DecodingProcess],
        counted: Callable[[str], None],
        suspect: Callable[[Group], None],
        slow: Callable[[Lane, CameraId], None],
        left: Callable[[Lane], None],
        *,
        before: Callable[[], None] = lambda: None,
        patience: Patience,
        timeout_s: float,
        open_pixels: int,
    ) -> None:
        """`start` returns a new process that is ready; after `StartError` it is called again.

        `counted` takes the name of each outcome. `suspect` takes a group of which a unit was rejected, or ended a
        process. `slow` takes the camera whose unit occupies the process beyond the `patience`; it may call
        `restrict_to`. Then `left` is called at the lane's end. `before` is called before each unit. All are called on
        the thread. `open_pixels` bounds the sum of the sizes of open decoders: each counts with its picture and
        `DECODER_PIXELS`.
        """
        self.number = number
        self._start = start
        self._counted = counted
        self._suspect = suspect
        self._slow = slow
        self._left = left
        self._before = before
        self._patience = patience
        self._timeout_s = timeout_s
        self._open_pixels = open_pixels
        self._leaving = False
        self._jobs: dict[CameraId, deque[Job]] = {}
        self._shares = TimeShares()
        self._next_cameras: list[tuple[float, int, CameraId]] = []
        """A heap with one entry for each camera with jobs: its used time when the entry was added, the number of the
        entry, and the camera."""
        self._order = count()
        self._change = threading.Condition()
        self._closed = False
        self._process: DecodingProcess | None = None
        self._ready_s = 0.0
        """CPU seconds of the process when it was ready."""
        self._units = 0
        self._open: dict[Group, _OpenDecoder] = {}
        """Open decoders in the order of their opening."""
        self._turns = 0
        self._numbers = count(1)
        self._thread = threading.Thread(target=self._run, name=f"decoding-{number}", daemon=True)
        self._thread.start()

    def put(self, jobs: Iterable[Job]) -> None:
        """Decode units, each after all that were put before for its camera, and set their futures.

        Cancelled units of these cameras leave the queue.
        """
        with self._change:
            for job in jobs:
                queue = self._queue(job.group.camera_id)
                while queue and queue[-1].done.cancelled():
                    queue.pop()
                queue.append(job)
            self._change.notify()

    def restrict_to(self, camera_id: CameraId) -> list[Job]:
        """Keep this camera only, and end after the current unit; return the jobs of the others."""
        with self._change:
            self._leaving = True
            own = self._jobs.pop(camera_id, None)
            others = self._drained()
            if own is not None:
                self._queue(camera_id).extend(own)
            return others

    def pop_rest(self) -> list[Job]:
        """Remove and return the jobs of a lane that has ended."""
        with self._change:
            return self._drained()

    def _drained(self) -> list[Job]:
        jobs = [job for queue in self._jobs.values() for job in queue]
        self._jobs.clear()
        self._next_cameras.clear()
        return jobs

    def _queue(self, camera_id: CameraId) -> deque[Job]:
        """Return the queue of a camera's jobs. A new one has its turn by the time that the camera has used."""
        if camera_id not in self._jobs:
            self._jobs[camera_id] = deque()
            heapq.heappush(self._next_cameras, (self._shares.used_s(camera_id), next(self._order), camera_id))
        return self._jobs[camera_id]

    def _pop_jobs(self) -> tuple[CameraId, deque[Job]]:
        """Remove and return the camera that has used the least time, with its jobs; of several, the first in order."""
        while True:
            known_s, _, camera_id = heapq.heappop(self._next_cameras)
            used_s = self._shares.used_s(camera_id)
            if used_s <= known_s:
                return camera_id, self._jobs.pop(camera_id)
            heapq.heappush(self._next_cameras, (used_s, next(self._order), camera_id))  # it was charged since

    def close(self) -> None:
        """End the process after the current unit. Later units are cancelled."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def _next_job(self) -> Job | None:
        """Wait for the next job; None when the lane is closed or leaves."""
        with self._change:
            while not (self._jobs or self._closed or self._leaving):
                self._change.wait()
            if self._closed or self._leaving:
                return None
            camera_id, jobs = self._pop_jobs()
            job = jobs.popleft()
            if jobs:
                self._queue(camera_id).extend(jobs)
            return job

    def _run(self) -> None:
        while (job := self._next_job()) is not None:
            # A later unit that needs a cancelled one decodes it with its group's units.
            if not job.done.set_running_or_notify_cancel():
                continue
            self._before()
            began_s, process = time.monotonic(), self._process
            used_s = 0.0 if process is None else process.used_s()
            try:
                planes = self._decoded(job)
            except (WireError, CancelledError) as error:
                job.done.set_exception(error)
            except Exception as error:  # a defect here must not stop the lane
                log.exception("decoding_failed", group=job.group.name)
                job.done.set_exception(error)
            else:
                self._counted("decoded")
                job.done.set_result(planes)
            now, group = self._process, job.group
            if now is None:  # the unit has ended its process: it costs the time that it took
                seconds = time.monotonic() - began_s
            else:
                seconds = now.used_s() - (used_s if now is process else self._ready_s)
            self._shares.charge([group.camera_id], group.height * group.width, max(_LEAST_S, seconds))
        self._end_process()
        if self._leaving:
            self._left(self)
        for job in self.pop_rest():
            job.done.cancel()

    def _decoded(self, job: Job) -> Planes:
        group = job.group
        process = self._process
        if process is not None and process.has_ended():  # between two units: no camera is at fault
            log.warning("decoding_process_ended", pid=process.pid)
            self._counted("crashed")
            self._end_process()
        elif process is not None and (
            self._units >= _UNITS_OF_A_PROCESS or process.used_s() >= _USED_S or process.is_full()
        ):
            self._end_process()
        if group.failure is not None:
            raise MissingReferenceError(f"{group.name}: an earlier frame failed: {group.failure}")
        try:
            if job.place is None:
                return self._ask(Operation.ALONE, 0, group, job.unit)
            return self._in_chain(job.place, group, job.unit)
        except ProcessLost as lost:
            log.warning("decoding_process_lost", group=group.name, reason=lost.cause)
            self._counted(lost.cause)
            self._end_process()
            group.failure = DecoderLostError(f"{group.name}: {lost}")
            self._suspect(group)
            raise group.failure from None
        except BadPixelsError as error:
            self._counted("refused")
            self._open.pop(group, None)
            self._suspect(group)
            if job.place is not None:
                group.failure = error
            raise

    def _in_chain(self, place: int, group: Group, unit: AccessUnit) -> Planes:
        found = self._open.get(group)
        if found is None or found.next != place:
            units = group.units  # another thread may drop them
            if place and units is None:
                raise MissingReferenceError(
                    f"{group.name}: its decoder was closed, and its earlier frames are not held"
                )
            self._close(group)
            self._make_room(group)
            found = self._open[group] = _OpenDecoder(next(self._numbers), group)
            for earlier in (units or [])[:place]:
                self._next(found, earlier)
            if place:
                self._counted("reopened")
        self._turns += 1
        found.turn = self._turns
        return self._next(found, unit)

    def _next(self, found: _OpenDecoder, unit: AccessUnit) -> Planes:
        planes = self._ask(Operation.NEXT if found.next else Operation.OPEN, found.number, found.group, unit)
        found.next += 1
        return planes

    def _ask(self, operation: Operation, number: int, group: Group, unit: AccessUnit) -> Planes:
        if self._process is None:
            self._process = self._start_process()
            self._units = 0
            log.info("decoding_process_started", pid=self._process.pid, limits=self._process.limits())
            self._ready_s = self._process.used_s()
        self._units += 1
        was_slow = False

        def note() -> None:
            nonlocal was_slow
            was_slow = True
            self._slow(self, group.camera_id)

        slow = SlowCallback(self._patience.seconds, note)
        planes = self._process.decode(operation, number, unit, group.height, group.width, self._timeout_s, slow)
        self._patience.answered(was_slow)
        return planes

    def _start_process(self) -> DecodingProcess:
        """Return a new process. While none can be started, the unit waits, and the start is tried again.

        No frame is at fault: a dead letter would lose it for a reason that an operator can mend. Raises
        `CancelledError` if the lane is closed meanwhile.
        """
        backoff = Backoff()
        while True:
            try:
                return self._start()
            except StartError:
                with self._change:
                    if self._change.wait_for(lambda: self._closed, backoff.next_s()):
                        raise CancelledError from None

    def _make_room(self, group: Group) -> None:
        # A stream can make each decoder take several times the memory that its pictures need.
        own = [each for each in self._open if each.camera_id == group.camera_id]
        for earlier in own[: 1 - GROUPS_PER_CAMERA]:
            self._close(earlier)
        used = sum(map(_size, self._open)) + _size(group)
        while self._open and used > self._open_pixels:
            closed = self._decoder_to_close(group)
            used -= _size(closed)
            self._close(closed)

    def _decoder_to_close(self, group: Group) -> Group:
        """Return the group whose decoder is closed for that of `group`: an idle one, or the one that was opened last.

        A decoder is idle if its camera has begun a later group, or had no turn for long. Cameras take turns, so that
        the least recently used of the others is needed next. By closing the newest, only the surplus cameras and one
        more reopen.
        """
        latest = {each.camera_id: each for each in (*self._open, group)}
        since = self._turns - _IDLE_TURNS * len(self._open)
        idle = [each for each, found in self._open.items() if latest[each.camera_id] is not each or found.turn < since]
        return min(idle, key=lambda each: self._open[each].turn) if idle else next(reversed(self._open))

    def _close(self, group: Group) -> None:
        found = self._open.pop(group, None)
        if found is not None and self._process is not None:
            self._process.close_decoder(found.number)

    def _end_process(self) -> None:
        """End the process, and with it all decoders."""
        self._open.clear()
        process, self._process, self._units = self._process, None, 0
        if process is not None:
            process.kill()


def _size(group: Group) -> int:
    """Return the pixels for which the decoder of a group counts while it is open."""
    return group.height * group.width + DECODER_PIXELS
