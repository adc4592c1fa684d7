"""A decoding process that does not answer holds its own camera's frames, and nobody else's."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
import structlog

from processors.decoding import decoders as module
from processors.decoding.decoders import _KEPT, DecodingSettings, VideoDecoders, VideoUnit
from processors.decoding.lane import DECODER_PIXELS, Patience
from processors.decoding.process import DecodingProcess, ProcessLost, SlowCallback
from processors.decoding.protocol import Operation
from processors.decoding.sandbox import CPU_S
from schemas.errors import BadPixelsError, DecoderLostError, MissingReferenceError
from schemas.identity import CameraId
from schemas.messages.access_unit import AccessUnit, Codec
from schemas.pixels.planes import Colour, Planes

WAIT_S = 60.0
DOOR, GATE = CameraId("site/door"), CameraId("site/gate")


class Scripted:
    """A process that answers at once, except for the unit `hang`, for which it is slow until `answer` is called."""

    pid = 1

    def __init__(self, number: int, hanging: Hanging) -> None:
        self.number = number
        self.cpu_s = 0.0
        self._hanging = hanging

    def used_s(self) -> float:
        return self.cpu_s

    def limits(self) -> list[str]:
        return []

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
        if unit.data == b"hang" and not self._hanging.over.is_set():
            slow.note()
            self._hanging.begun.release()
            assert self._hanging.over.wait(WAIT_S)
            if self._hanging.is_lost:
                raise ProcessLost("hung")
        return Planes(np.full((height, width), self.number, np.uint8), None, None)

    def close_decoder(self, _decoder: int) -> None:
        pass

    def kill(self) -> None:
        self._hanging.killed.append(self.number)


class Hanging:
    """The fate of all units `hang`."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.over = threading.Event()
        self.is_lost = False
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


def hang(decoders: VideoDecoders, hanging: Hanging, camera: CameraId) -> Future[Planes]:
    done = submit(decoders, camera, 0, b"hang")
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


def test_a_spare_process_that_cannot_be_started_costs_no_frame(hanging: Hanging) -> None:
    def start(pixels: int, size: int) -> Any:
        if hanging.started:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return hanging.start(pixels, size)

    decoders = VideoDecoders(DecodingSettings(), start=start)
    assert [decoder(submit(decoders, GATE, place)) for place in (0, 1)] == [0, 0]
    decoders.close()


def test_a_frame_waits_until_a_process_can_be_started(hanging: Hanging) -> None:
    failures = [BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), MemoryError()]

    def start(pixels: int, size: int) -> Any:
        if failures:
            raise failures.pop()
        return hanging.start(pixels, size)

    decoders = VideoDecoders(DecodingSettings(), start=start)
    with structlog.testing.capture_logs() as logs:
        assert decoder(submit(decoders, GATE, 0)) == 0
    assert [each["event"] for each in logs if each["log_level"] == "warning"] == ["decoding_process_not_started"]
    decoders.close()


def test_a_program_that_is_gone_fails_the_frame_instead_of_stopping_all() -> None:
    def start(_pixels: int, _size: int) -> Any:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    decoders = VideoDecoders(DecodingSettings(), start=start)
    assert isinstance(submit(decoders, GATE, 0).exception(WAIT_S), FileNotFoundError)
    decoders.close()


def test_decoders_close_while_no_process_can_be_started() -> None:
    tried = threading.Event()

    def start(_pixels: int, _size: int) -> Any:
        tried.set()
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    decoders = VideoDecoders(DecodingSettings(), start=start)
    done = submit(decoders, GATE, 0)
    assert tried.wait(WAIT_S)
    decoders.close()
    assert isinstance(done.exception(0), BlockingIOError)


def test_a_process_that_cannot_be_started_leaves_no_file_open(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = os.memfd_create

    def memory(name: str) -> int:
        made.append(real(name))
        return made[-1]

    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "memfd_create", memory)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(BlockingIOError):
        DecodingProcess(64, 2**20)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(made[0])


def test_frames_that_wait_behind_a_hanging_one_move_at_once(decoders: VideoDecoders, hanging: Hanging) -> None:
    ready = threading.Event()
    first = submit(decoders, GATE, 0)
    first.add_done_callback(lambda _: ready.wait(WAIT_S))  # the lane waits until all others are submitted
    held = submit(decoders, DOOR, 0, b"hang")
    waiting = [submit(decoders, CameraId(f"site/{number}"), 0) for number in range(3)]
    ready.set()
    assert [decoder(each) for each in waiting] == [1, 1, 1]
    assert not held.done()


def test_a_process_that_was_only_slow_costs_no_frame(decoders: VideoDecoders, hanging: Hanging) -> None:
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


def test_the_processes_that_one_camera_each_may_occupy_are_bounded(decoders: VideoDecoders, hanging: Hanging) -> None:
    held = [hang(decoders, hanging, CameraId(f"site/{number}")) for number in range(_KEPT + 1)]
    waiting = submit(decoders, GATE, 0)
    assert len(hanging.started) == _KEPT + 2
    assert not waiting.done()
    hanging.answer(lost=False)
    assert sorted(decoder(each) for each in held) == list(range(_KEPT + 1))
    assert decoder(waiting) == _KEPT


def test_suspects_wait_for_the_units_of_others(
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


def test_suspects_wait_for_others_no_longer_than_the_bound(decoders: VideoDecoders, hanging: Hanging) -> None:
    assert isinstance(submit(decoders, DOOR, 0, b"bad").exception(WAIT_S), BadPixelsError)
    held = hang(decoders, hanging, GATE)
    submit(decoders, DOOR, 0, key=9).result(WAIT_S)
    assert not held.done()


def test_patience_grows_with_answers_that_were_only_late_and_returns() -> None:
    patience = Patience(0.2, 2.0)
    for expected in (0.4, 0.8, 1.6, 2.0, 2.0):
        patience.answered(slow=True)
        assert patience.seconds == pytest.approx(expected)
    for _ in range(5000):
        patience.answered(slow=False)
    assert patience.seconds == 0.2


@pytest.fixture
def four(hanging: Hanging) -> Iterator[VideoDecoders]:
    """Decoders of which four may be open."""
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


def test_later_groups_take_the_decoders_of_earlier_ones(four: VideoDecoders) -> None:
    assert [rounds(four, range(4), range(5), key) for key in range(0, 50, 5)] == [0] * 10
    # Groups that begin at other times, of three cameras: an earlier group's decoder is open besides theirs.
    for each in range(60):
        for camera in range(min(3, 1 + each // 2)):
            group, place = divmod(each - 2 * camera, 6)
            submit(four, CameraId(f"site/{camera}"), place, key=100 + 6 * group).result(WAIT_S)
    assert four.counts.get("reopened", 0) == 0


def test_cameras_that_come_take_the_decoders_of_those_that_have_left(four: VideoDecoders) -> None:
    rounds(four, range(4), range(10))
    assert rounds(four, range(4, 8), range(20)) < 40
    assert rounds(four, range(4, 8), range(20, 40)) == 0
