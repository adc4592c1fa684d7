"""A decoding process that does not answer delays the frames of its own camera and of no other."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any

import numpy as np
import pytest
import structlog

from processors.decoding import decoders as module
from processors.decoding.decoders import _KEPT, DecodingSettings, VideoDecoders, VideoUnit
from processors.decoding.lane import DECODER_PIXELS, GROUPS_PER_CAMERA, Group, Job, Lane, Patience
from processors.decoding.process import DecodingProcess, ProcessLost, SlowCallback, StartError
from processors.decoding.protocol import Operation
from processors.decoding.sandbox import CALLS, CPU_S
from processors.decoding.starter import ProcessStarter
from processors.settings import ProcessorSettings
from processors.steps.chain import video_decoders
from schemas.errors import BadPixelsError, DecoderLostError, MissingReferenceError
from schemas.identity import CameraId
from schemas.messages.access_unit import AccessUnit, Codec
from schemas.pixels.planes import Colour, Planes
from tests.waiting import wait_until

WAIT_S = 60.0
DOOR, GATE = CameraId("site/door"), CameraId("site/gate")


class Scripted:
    """A process that answers at once, except that the units `hang` and `hold` take until `answer` is called.

    `hang` counts as slow. A unit takes 10 ms of CPU time, `costly` takes a second. `crash` takes 20 ms and
    ends the process.
    """

    pid = 1

    def __init__(self, number: int, hanging: Hanging) -> None:
        self.number = number
        self.cpu_s = 0.0
        self._hanging = hanging

    def used_s(self) -> float:
        return self.cpu_s

    def has_ended(self) -> bool:
        return False

    def is_full(self) -> bool:
        return False

    def limits(self) -> list[str]:
        return [CALLS]

    def decode(
        self,
        _operation: Operation,
        _decoder: int,
        unit: AccessUnit,
        height: int,
        width: int,
        _s: float,
        slow: SlowCallback,
    ) -> Planes:
        if unit.data == b"bad":
            raise BadPixelsError("bad")
        self.cpu_s += 1.0 if unit.data == b"costly" else 0.01
        if unit.data == b"crash":
            time.sleep(0.02)
            raise ProcessLost("crashed")
        if unit.data in (b"hang", b"hold") and not self._hanging.over.is_set():
            if unit.data == b"hang":
                slow.note()
            self._hanging.begun.release()
            assert self._hanging.over.wait(WAIT_S)
            if self._hanging.is_lost:
                raise ProcessLost("hung")
        return Planes(np.full((height, width), self.number, np.uint8), None, None)

    def close_decoder(self, _decoder: int) -> None:
        self._hanging.closed += 1

    def kill(self) -> None:
        self._hanging.killed.append(self.number)


class Hanging:
    """The shared state of all units `hang`: begun, answered or lost."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.over = threading.Event()
        self.is_lost = False
        self.closed = 0
        self.killed: list[int] = []
        self.started: list[Scripted] = []

    def start(self, _pixels: int, _bytes: int) -> Any:
        self.started.append(Scripted(len(self.started), self))
        return self.started[-1]

    def answer(self, *, lost: bool) -> None:
        self.is_lost = lost
        self.over.set()


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Hanging:
    monkeypatch.setattr(os, "setpriority", lambda *_: None)
    return Hanging()


@pytest.fixture
def decoders(hanging: Hanging) -> Iterator[VideoDecoders]:
    start: Callable[[int, int], DecodingProcess] = hanging.start
    made = VideoDecoders(DecodingSettings(), start=start)
    yield made
    hanging.over.set()
    made.close()


def submit(
    decoders: VideoDecoders, camera: CameraId, place: int, data: bytes = b"unit", key: int = 0
) -> Future[Planes]:
    unit = AccessUnit(Codec.H264, Colour.BT601_FULL, data)
    return decoders.submit(VideoUnit(camera, 7, key + place, key, place, 0, False, 4, 4, unit), 0.0)


def decoder(done: Future[Planes]) -> int:
    """Return the number of the process that decoded a unit."""
    return int(done.result(WAIT_S).luma[0, 0])


def hang(decoders: VideoDecoders, hanging: Hanging, camera: CameraId, data: bytes = b"hang") -> Future[Planes]:
    done = submit(decoders, camera, 0, data)
    assert hanging.begun.acquire(timeout=WAIT_S)
    return done


def test_other_cameras_are_decoded_while_one_hangs(decoders: VideoDecoders, hanging: Hanging) -> None:
    assert decoder(submit(decoders, GATE, 0)) == 0
    spare = len(hanging.started)
    held = hang(decoders, hanging, DOOR)
    later = submit(decoders, DOOR, 1)
    assert spare == 2
    assert [decoder(submit(decoders, GATE, place)) for place in (1, 2)] == [1, 1]
    assert not held.done()
    assert not later.done()
    hanging.answer(lost=True)
    with pytest.raises(DecoderLostError):
        held.result(WAIT_S)
    with pytest.raises(MissingReferenceError):
        later.result(WAIT_S)
    assert decoders.counts["hung"] == 1
    assert hanging.killed == [0]


def test_a_camera_whose_units_cost_much_waits_for_the_others(decoders: VideoDecoders, hanging: Hanging) -> None:
    hang(decoders, hanging, CameraId("site/first"), b"hold")
    order: list[bytes] = []

    def note(data: bytes, _: Future[Planes]) -> None:
        order.append(data)

    done = [(b"costly", submit(decoders, DOOR, place, b"costly")) for place in range(5)]
    done += [(b"unit", submit(decoders, GATE, place)) for place in range(50)]
    for data, each in done:
        each.add_done_callback(partial(note, data))
    hanging.answer(lost=False)
    for _, each in done:
        each.result(WAIT_S)
    assert order[:51].count(b"unit") == 50


def assert_true(found: bool) -> None:
    assert found


def test_a_camera_whose_units_end_the_process_takes_turns_with_the_others(hanging: Hanging) -> None:
    begin = threading.Event()
    lane = Lane(
        0,
        lambda: hanging.start(0, 0),
        lambda _: None,
        lambda _: None,
        lambda *_: None,
        lambda _: None,
        before=lambda: assert_true(begin.wait(WAIT_S)),
        patience=Patience(60.0, 60.0),
        timeout_s=60.0,
        open_pixels=2**20,
    )
    order: list[CameraId] = []

    def jobs(camera: CameraId, count: int, data: bytes) -> Iterator[Job]:
        for number in range(count):
            done: Future[Planes] = Future()
            done.add_done_callback(lambda _: order.append(camera))
            unit = AccessUnit(Codec.H264, Colour.BT601_FULL, data)
            yield Job(Group(camera, f"{camera}/{number}", 4, 4), 0, unit, done)

    begin.set()
    lane.put(first := list(jobs(GATE, 4, b"unit")))
    for each in first:
        each.done.result(WAIT_S)
    begin.clear()
    lane.put(rest := list(jobs(DOOR, 20, b"crash")))
    lane.put(jobs(GATE, 10, b"unit"))
    begin.set()
    for each in rest:
        assert isinstance(each.done.exception(WAIT_S), DecoderLostError)
    lane.close()
    assert order[:29].count(GATE) == 14


def test_the_failed_start_of_a_spare_process_fails_no_frame(hanging: Hanging) -> None:
    def start(pixels: int, size: int) -> Any:
        if hanging.started:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return hanging.start(pixels, size)

    decoders = VideoDecoders(DecodingSettings(), start=start)
    assert [decoder(submit(decoders, GATE, place)) for place in (0, 1)] == [0, 0]
    decoders.close()


class FailingStarts:
    """A start that fails while `error` is set; if `dies` is set, it returns a process that ends before it is ready."""

    def __init__(self, hanging: Hanging, error: Exception | None = None, *, dies: bool = False) -> None:
        self.error = error
        self.dies = dies
        self.tries = threading.Semaphore(0)
        self._hanging = hanging

    def start(self, pixels: int, size: int) -> Any:
        self.tries.release()
        if self.error is not None:
            raise self.error
        return EndedProcess() if self.dies else self._hanging.start(pixels, size)

    def recover(self) -> None:
        self.error, self.dies = None, False

    def await_tries(self, count: int) -> None:
        for _ in range(count):
            assert self.tries.acquire(timeout=WAIT_S)


class EndedProcess:
    """A process that ends before it is ready."""

    def limits(self) -> list[str]:
        raise ProcessLost("crashed")

    def kill(self) -> None:
        pass


class OpenProcess(EndedProcess):
    """A process whose system calls the kernel does not filter."""

    def __init__(self) -> None:
        self.is_killed = False

    def limits(self) -> list[str]:
        return ["memory", "core"]

    def kill(self) -> None:
        self.is_killed = True


def test_a_process_without_a_filter_of_system_calls_is_used_only_if_the_settings_allow_it() -> None:
    process: Any = OpenProcess()
    starter = ProcessStarter(lambda: process)
    with pytest.raises(StartError, match=r"expected a filter of its system calls, got memory, core\. .*unconfined"):
        starter.start(0)
    assert process.is_killed
    assert "system calls" in starter.failure
    assert ProcessStarter(lambda: process, unconfined=True).start(0) is process
    decoders = VideoDecoders(DecodingSettings(), start=lambda *_: process)
    waiting = submit(decoders, GATE, 0)
    wait_until(lambda: "system calls" in decoders.start_failure, "the refusal of the process")
    assert not waiting.done()
    decoders.close()
    for allowed in (False, True):
        settings = ProcessorSettings(kafka="none:1", decoding_unconfined=allowed)
        assert video_decoders(settings)._settings.unconfined is allowed


def errno_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (errno_error(errno.EAGAIN), "BlockingIOError"),
        (MemoryError(), "MemoryError"),
        (errno_error(errno.ENOENT), "FileNotFoundError"),
        (errno_error(errno.EACCES), "PermissionError"),
        (None, "ended before it was ready"),
    ],
)
def test_frames_wait_until_a_process_can_be_started_and_the_cause_is_named(
    hanging: Hanging, error: Exception | None, named: str
) -> None:
    failing = FailingStarts(hanging, error, dies=error is None)
    decoders = VideoDecoders(DecodingSettings(), start=failing.start)
    with structlog.testing.capture_logs() as logs:
        waiting = [submit(decoders, camera, 0) for camera in (GATE, DOOR)]
        failing.await_tries(3)
        assert named in decoders.start_failure
        assert not any(done.done() for done in waiting)
        failing.recover()
        assert [decoder(done) for done in waiting] == [0, 0]
    assert decoders.start_failure == ""
    errors = [each for each in logs if each["log_level"] == "error"]
    assert [each["event"] for each in errors] == ["decoding_process_not_started"]
    assert named in errors[0]["error"]
    assert decoders.counts == {"decoded": 2}
    decoders.close()


def test_the_wait_for_an_earlier_unit_restarts_once_a_process_can_be_started(hanging: Hanging) -> None:
    failing = FailingStarts(hanging, errno_error(errno.ENOMEM))
    decoders = VideoDecoders(DecodingSettings(wait_s=2.0), start=failing.start)
    early = submit(decoders, GATE, 1)
    blocked = submit(decoders, DOOR, 0)
    failing.await_tries(2)
    decoders.poll(100.0)
    failing.recover()
    decoder(blocked)
    decoders.poll(101.9)
    assert not early.done()
    decoders.poll(102.1)
    with pytest.raises(MissingReferenceError):
        early.result(WAIT_S)
    decoders.close()


def test_decoders_close_while_no_process_can_be_started(hanging: Hanging) -> None:
    failing = FailingStarts(hanging, errno_error(errno.EAGAIN))
    decoders = VideoDecoders(DecodingSettings(), start=failing.start)
    done = submit(decoders, GATE, 0)
    failing.await_tries(1)
    with structlog.testing.capture_logs() as logs:
        decoders.close()
    assert isinstance(done.exception(0), CancelledError)
    assert "decoding_failed" not in [each["event"] for each in logs]


def test_a_process_that_cannot_be_started_leaves_no_file_open(monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[int] = []
    real = os.memfd_create

    def memory(name: str) -> int:
        created.append(real(name))
        return created[-1]

    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "memfd_create", memory)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(BlockingIOError):
        DecodingProcess(64, 2**20)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(created[0])


def test_frames_that_wait_behind_a_hanging_one_are_moved_at_once(decoders: VideoDecoders, hanging: Hanging) -> None:
    ready = threading.Event()
    first = submit(decoders, GATE, 0)
    first.add_done_callback(lambda _: ready.wait(WAIT_S))  # the lane waits until all others are submitted
    held = submit(decoders, DOOR, 0, b"hang")
    waiting = [submit(decoders, CameraId(f"site/{number}"), 0) for number in range(3)]
    ready.set()
    assert [decoder(each) for each in waiting] == [1, 1, 1]
    assert not held.done()


def test_a_process_that_was_only_slow_fails_no_frame(decoders: VideoDecoders, hanging: Hanging) -> None:
    held = hang(decoders, hanging, DOOR)
    later = submit(decoders, DOOR, 1)
    assert decoder(submit(decoders, GATE, 0)) == 1
    hanging.answer(lost=False)
    assert (decoder(held), decoder(later)) == (0, 1)
    assert decoder(submit(decoders, DOOR, 2)) == 1
    assert "hung" not in decoders.counts


def test_a_process_is_replaced_before_it_reaches_its_limit_of_cpu_time(
    decoders: VideoDecoders, hanging: Hanging
) -> None:
    assert decoder(submit(decoders, DOOR, 0)) == 0
    hanging.started[0].cpu_s = CPU_S / 2
    assert decoder(submit(decoders, DOOR, 1)) == 1
    assert hanging.killed == [0]
    assert "crashed" not in decoders.counts


def test_the_number_of_occupied_processes_is_bounded(decoders: VideoDecoders, hanging: Hanging) -> None:
    held = [hang(decoders, hanging, CameraId(f"site/{number}")) for number in range(_KEPT + 1)]
    waiting = submit(decoders, GATE, 0)
    assert len(hanging.started) == _KEPT + 2
    assert not waiting.done()
    hanging.answer(lost=False)
    assert sorted(decoder(each) for each in held) == list(range(_KEPT + 1))
    assert decoder(waiting) == _KEPT


def test_suspects_wait_for_the_units_of_other_cameras(
    decoders: VideoDecoders, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "YIELD_S", WAIT_S)
    assert isinstance(submit(decoders, DOOR, 0, b"bad").exception(WAIT_S), BadPixelsError)
    held = hang(decoders, hanging, GATE)
    ended: list[str] = []
    suspect = submit(decoders, DOOR, 0, key=9)
    suspect.add_done_callback(lambda _: ended.append("suspect"))
    held.add_done_callback(lambda _: ended.append("usual"))
    hanging.answer(lost=False)
    suspect.result(WAIT_S)
    assert ended == ["usual", "suspect"]


def test_suspects_wait_for_other_cameras_no_longer_than_the_bound(decoders: VideoDecoders, hanging: Hanging) -> None:
    assert isinstance(submit(decoders, DOOR, 0, b"bad").exception(WAIT_S), BadPixelsError)
    held = hang(decoders, hanging, GATE)
    submit(decoders, DOOR, 0, key=9).result(WAIT_S)
    assert not held.done()


def test_patience_grows_with_late_answers_and_shrinks_with_prompt_ones() -> None:
    patience = Patience(0.2, 2.0)
    for expected in (0.4, 0.8, 1.6, 2.0, 2.0):
        patience.answered(slow=True)
        assert patience.seconds == pytest.approx(expected)
    for _ in range(5000):
        patience.answered(slow=False)
    assert patience.seconds == 0.2


@pytest.fixture
def four(hanging: Hanging) -> Iterator[VideoDecoders]:
    """Yield a pool in which at most four decoders are open."""
    start: Callable[[int, int], DecodingProcess] = hanging.start
    made = VideoDecoders(DecodingSettings(open_pixels=4 * (4 * 4 + DECODER_PIXELS)), start=start)
    yield made
    made.close()


def rounds(decoders: VideoDecoders, cameras: range, places: range, key: int = 0) -> int:
    """Decode a unit of each camera at each place in turn; return how many of them reopened a decoder."""
    before = decoders.counts.get("reopened", 0)
    for place in places:
        for camera in cameras:
            submit(decoders, CameraId(f"site/{camera}"), place, key=key).result(WAIT_S)
    return decoders.counts.get("reopened", 0) - before


@pytest.mark.parametrize(("cameras", "reopened"), [(4, 0), (5, 2), (8, 5)])
def test_only_the_surplus_of_cameras_that_take_turns_reopens_its_decoders(
    four: VideoDecoders, cameras: int, reopened: int
) -> None:
    assert rounds(four, range(cameras), range(20)) <= 20 * reopened


def test_later_groups_reuse_the_decoders_of_earlier_ones(four: VideoDecoders) -> None:
    assert [rounds(four, range(4), range(5), key) for key in range(0, 50, 5)] == [0] * 10
    # The groups of three cameras begin at different times: the decoder of an earlier group is open as well.
    for each in range(60):
        for camera in range(min(3, 1 + each // 2)):
            group, place = divmod(each - 2 * camera, 6)
            submit(four, CameraId(f"site/{camera}"), place, key=100 + 6 * group).result(WAIT_S)
    assert four.counts.get("reopened", 0) == 0


def test_a_camera_has_no_more_open_decoders_than_groups_that_may_get_frames(
    decoders: VideoDecoders, hanging: Hanging
) -> None:
    for key in range(10):
        submit(decoders, DOOR, 0, key=key).result(WAIT_S)
    assert hanging.closed == 10 - GROUPS_PER_CAMERA


def test_new_cameras_get_the_decoders_of_cameras_that_have_left(four: VideoDecoders) -> None:
    rounds(four, range(4), range(10))
    assert rounds(four, range(4, 8), range(20)) < 40
    assert rounds(four, range(4, 8), range(20, 40)) == 0
