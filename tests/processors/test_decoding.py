"""Decoding in worker processes: order, gaps, duplicates, hostile bytes, crashes, hangs, and the limits of a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from processors.decoding.decoders import DecodingSettings, VideoDecoders, VideoUnit
from processors.decoding.process import DecodingProcess
from processors.decoding.protocol import Request
from processors.decoding.sandbox import CALLS
from processors.device.decode import decoded_batch
from producers.video.encoder import encode_alone, software_encoder
from producers.video.group import GroupEncoder
from producers.video.video_settings import VideoSettings
from schemas.errors import BadPixelsError, DecoderLostError, MalformedError, MissingReferenceError, OverSizeError
from schemas.identity import CameraId
from schemas.messages.access_unit import AccessUnit, Codec
from schemas.messages.frame import Encoding
from schemas.pixels.planes import Colour, Planes
from tests.processors.tiny import camera_key, verified_job
from tests.waiting import wait_until

DOOR, GATE = CameraId("site/door"), CameraId("site/gate")
HEIGHT, WIDTH = 72, 101
WAIT_S = 60.0

Make = Callable[..., VideoDecoders]


def luma(number: int) -> NDArray[np.uint8]:
    down, right = np.mgrid[:HEIGHT, :WIDTH]
    shown: NDArray[np.uint8] = ((3 * right + 2 * down + 7 * number) // 4 + 60).astype(np.uint8)
    return shown


def chain(count: int, codec: Codec = Codec.H264) -> list[bytes]:
    """Return the access units of the pictures 0, 1, …"""
    encoder = software_encoder(codec, HEIGHT, WIDTH, 25.0, 8)
    units = [encoder.encode(Planes(luma(number), None, None)) for number in range(count)]
    encoder.close()
    return units


def unit(data: bytes, place: int = 0, *, camera: CameraId = DOOR, key: int = 0, **changes: Any) -> VideoUnit:
    codec = changes.pop("codec", Codec.H264)
    found = VideoUnit(
        camera, 7, key + place, key, place, 1000, False, HEIGHT, WIDTH, AccessUnit(codec, Colour.BT601_FULL, data)
    )
    return found._replace(**changes)


def shows(done: Future[Planes], number: int) -> bool:
    found = done.result(WAIT_S).luma
    assert found.shape == (HEIGHT, WIDTH)
    return float(np.abs(found.astype(int) - luma(number)).mean()) < 2


def fails(done: Future[Planes], kind: type[BaseException]) -> str:
    with pytest.raises(kind) as caught:
        done.result(WAIT_S)
    return str(caught.value)


class Processes:
    """A factory of real processes that keeps all of them."""

    def __init__(self) -> None:
        self.started: list[DecodingProcess] = []

    def __call__(self, most_pixels: int, memory_bytes: int) -> DecodingProcess:
        self.started.append(DecodingProcess(most_pixels, memory_bytes))
        return self.started[-1]


@pytest.fixture
def processes() -> Processes:
    return Processes()


@pytest.fixture
def make(processes: Processes) -> Iterator[Make]:
    """Yield a function that creates decoders without time limits unless a test sets them; close them at the end."""
    created = []

    def decoders(**limits: Any) -> VideoDecoders:
        settings = DecodingSettings(**{"timeout_s": WAIT_S, "patience_s": WAIT_S} | limits)
        created.append(VideoDecoders(settings, start=processes))
        return created[-1]

    yield decoders
    for each in created:
        each.close()


def test_after_a_takeover_a_backlog_of_many_groups_is_decoded(make: Make) -> None:
    decoders, units = make(), chain(6)
    for place in range(3):
        decoders.restore(unit(units[place], place))
    backlog = [(0, place) for place in (3, 4, 5)] + [(key, place) for key in (10, 20, 30) for place in range(6)]
    done = {(key, place): decoders.submit(unit(units[place], place, key=key), 0.0) for key, place in backlog}
    assert all(shows(each, place) for (_, place), each in done.items())


@pytest.mark.parametrize("codec", list(Codec))
def test_units_in_any_order_become_their_pictures(make: Make, codec: Codec) -> None:
    decoders = make()
    units = chain(6, codec)
    done = {place: decoders.submit(unit(units[place], place, codec=codec), 0.0) for place in (2, 0, 1, 5, 3, 4)}
    assert all(shows(each, place) for place, each in done.items())
    assert decoders.counts["decoded"] == 6


def test_a_gap_fails_the_rest_of_its_group_after_the_wait_and_no_other_group(make: Make) -> None:
    decoders = make(wait_s=2.0)
    units = chain(4)
    first = decoders.submit(unit(units[0], 0), 0.0)
    early = [decoders.submit(unit(units[place], place), 0.5) for place in (2, 3)]
    decoders.poll(2.0)
    assert not any(each.done() for each in early)
    decoders.poll(2.5)
    assert "place 1 is missing" in fails(early[0], MissingReferenceError)
    assert "site/door/7/0" in fails(early[1], MissingReferenceError)
    assert "missing" in fails(decoders.submit(unit(units[3], 3), 2.6), MissingReferenceError)
    assert shows(first, 0)
    assert shows(decoders.submit(unit(units[0], 0, key=10), 3.0), 0)
    assert shows(decoders.submit(unit(units[1], 1), 3.0), 1)  # the missing unit arrives late


def test_the_units_that_wait_are_bounded(make: Make) -> None:
    decoders = make(wait_units=3)
    waiting = [decoders.submit(unit(b"later", place), 0.0) for place in range(1, 5)]
    assert [fails(each, MissingReferenceError) for each in waiting]


def test_the_units_of_a_camera_that_wait_are_bounded_over_all_its_groups(make: Make) -> None:
    decoders = make(wait_units=3)
    first = [decoders.submit(unit(b"later", place), 0.0) for place in (1, 2)]
    other = decoders.submit(unit(b"later", 1, camera=GATE), 0.0)
    second = [decoders.submit(unit(b"later", place, key=10), 0.0) for place in (1, 2)]
    assert [fails(each, MissingReferenceError) for each in first]
    assert not any(each.done() for each in (other, *second))


def test_a_unit_in_progress_is_decoded_once_and_a_later_duplicate_shows_the_same(make: Make) -> None:
    decoders = make()
    units = chain(3)
    early = decoders.submit(unit(units[1], 1), 0.0)
    assert decoders.submit(unit(units[1], 1), 0.0) is early
    assert shows(decoders.submit(unit(units[0]), 0.0), 0)
    assert shows(early, 1)
    assert shows(decoders.submit(unit(units[1], 1), 0.0), 1)
    assert shows(decoders.submit(unit(units[2], 2), 0.0), 2)
    assert decoders.counts["duplicate"] == 1


def test_a_second_frame_at_an_occupied_place_is_rejected_and_not_decoded(make: Make) -> None:
    decoders, units = make(), chain(3)
    assert [shows(decoders.submit(unit(units[place], place), 0.0), place) for place in range(2)] == [True, True]
    assert "place 1: expected frame 1, which has come, got 9" in fails(
        decoders.submit(unit(units[1], 1, seq=9), 0.0), MalformedError
    )
    assert decoders.counts == {"decoded": 2}
    restored = make()
    restored.restore(unit(units[0]))
    fails(restored.submit(unit(units[0], seq=9), 0.0), MalformedError)
    waiting = restored.submit(unit(units[2], 2), 0.0)
    fails(restored.submit(unit(units[2], 2, seq=9), 0.0), MalformedError)
    assert shows(restored.submit(unit(units[1], 1), 0.0), 1)
    assert shows(waiting, 2)


def test_the_signals_that_stop_a_processor_do_not_stop_its_decoding_processes(make: Make, processes: Processes) -> None:
    decoders = make()
    units = chain(2)
    assert shows(decoders.submit(unit(units[0]), 0.0), 0)
    for each in (signal.SIGINT, signal.SIGTERM):
        os.kill(processes.started[0].pid, each)
    assert shows(decoders.submit(unit(units[1], 1), 0.0), 1)
    assert "crashed" not in decoders.counts


def test_restored_units_serve_the_later_ones_of_their_group_in_any_order(make: Make) -> None:
    decoders = make()
    units = chain(5)
    waiting = decoders.submit(unit(units[3], 3), 0.0)
    for place in (1, 0, 2, 1):
        decoders.restore(unit(units[place], place))
    assert shows(waiting, 3)
    assert shows(decoders.submit(unit(units[4], 4), 0.0), 4)
    assert (decoders.counts["restored"], decoders.counts["decoded"]) == (3, 2)


def test_a_restored_unit_counts_once_the_earlier_one_has_arrived(make: Make) -> None:
    decoders = make()
    units = chain(4)
    decoders.restore(unit(units[1], 1))
    early = decoders.submit(unit(units[3], 3), 0.0)
    assert shows(decoders.submit(unit(units[0]), 0.0), 0)
    assert shows(decoders.submit(unit(units[2], 2), 0.0), 2)
    assert shows(early, 3)


def test_frames_behind_a_dropped_restored_group_fail_at_once(make: Make) -> None:
    units = chain(3)
    decoders = make(held_bytes=4 * len(units[2]), wait_s=60.0)
    decoders.restore(unit(units[2], 2))  # the group's first units come last
    for number in range(20):
        decoders.restore(unit(units[2], 2, camera=CameraId(f"site/cam-{number}")))
    late = decoders.submit(unit(units[2], 3), 0.0)
    assert "place 0 is missing" in fails(late, MissingReferenceError)


def test_restored_units_count_as_held_before_the_earlier_ones_have_arrived(make: Make) -> None:
    units = chain(3)
    most = 6 * len(units[2])
    decoders = make(held_bytes=most)
    for number in range(20):
        decoders.restore(unit(units[2], 2, camera=CameraId(f"site/cam-{number}")))
        assert 0 < decoders.held_bytes <= most
    for number in range(20):
        decoders.discard(CameraId(f"site/cam-{number}"))
    assert decoders.held_bytes == 0


def test_a_repeated_key_frame_ends_no_group(make: Make) -> None:
    decoders = make()
    units = chain(2)
    for key in (0, 10, 20):
        assert shows(decoders.submit(unit(units[0], key=key), 0.0), 0)
    decoders.restore(unit(units[0], key=30), displace=False)
    assert shows(decoders.submit(unit(units[1], 1), 0.0), 1)


@pytest.mark.parametrize("boot", [7, 8], ids=["this boot", "an earlier boot"])
def test_replayed_groups_displace_neither_the_live_group_nor_the_one_in_use(make: Make, boot: int) -> None:
    decoders, units = make(), chain(4)

    def live(place: int) -> Future[Planes]:
        return decoders.submit(unit(units[place], place, key=90, captured_ms=9000), 0.0)

    def old(key: int, place: int) -> Future[Planes]:
        return decoders.submit(unit(units[place], place, key=key, boot_id=boot, captured_ms=1000 + key), 0.0)

    assert shows(live(0), 0)
    waiting = live(3), old(0, 2)
    for key in (10, 20, 30, 40):
        assert shows(old(key, 0), 0)
        assert old(0, 2) is waiting[1]  # in use
    assert not any(each.done() for each in waiting)
    assert [shows(live(place), place) for place in (1, 2)] == [True, True]
    assert shows(waiting[0], 3)
    assert [shows(old(0, place), place) for place in (0, 1)] == [True, True]
    assert shows(waiting[1], 2)


def test_a_group_of_a_clock_that_was_ahead_is_displaced_once_it_has_no_more_frames(make: Make) -> None:
    decoders, units = make(wait_s=WAIT_S), chain(2)
    assert shows(decoders.submit(unit(units[0], captured_ms=10**13), 0.0), 0)
    decoders.poll(60.0)
    waiting = decoders.submit(unit(units[1], 1, key=10), 60.0)
    for key in (20, 30):
        assert shows(decoders.submit(unit(units[0], key=key, captured_ms=1000 + key), 60.0), 0)
    assert not waiting.done()
    assert shows(decoders.submit(unit(units[0], key=10), 60.0), 0)
    assert shows(waiting, 1)


def test_a_probe_does_not_change_the_state_of_its_group(make: Make) -> None:
    decoders = make()
    units = chain(2)
    probe = encode_alone(Planes(luma(9), None, None))
    assert shows(decoders.submit(unit(units[0]), 0.0), 0)
    assert shows(decoders.submit(unit(probe, whole=True, seq=5), 0.0), 9)
    assert shows(decoders.submit(unit(units[1], 1), 0.0), 1)


def test_a_unit_that_does_not_decode_fails_only_its_group(make: Make, processes: Processes) -> None:
    decoders = make()
    units = chain(3)
    assert shows(decoders.submit(unit(units[0]), 0.0), 0)
    other = decoders.submit(unit(units[0], camera=GATE), 0.0)
    assert "access unit" in fails(decoders.submit(unit(b"\0\0\1\x65garbage", 1), 0.0), BadPixelsError)
    assert "earlier frame failed" in fails(decoders.submit(unit(units[2], 2), 0.0), MissingReferenceError)
    assert shows(other, 0)
    assert shows(decoders.submit(unit(units[1], 1, camera=GATE), 0.0), 1)
    # The camera's next group is decoded in another process, and after the groups of other cameras.
    assert shows(decoders.submit(unit(units[0], key=3), 0.0), 0)
    usual, suspects = (os.getpriority(os.PRIO_PROCESS, each.pid) for each in processes.started[:2])
    assert usual < suspects or usual == 19  # the lowest priority of Linux
    assert decoders.counts["refused"] == 1


def test_a_camera_without_another_failure_for_an_hour_is_decoded_with_the_others_again(
    make: Make, processes: Processes
) -> None:
    decoders = make()
    units = chain(1)
    fails(decoders.submit(unit(b"\0\0\1\x65garbage"), 0.0), BadPixelsError)
    assert shows(decoders.submit(unit(units[0], key=3), 0.0), 0)
    suspects = processes.started[1]
    os.kill(suspects.pid, signal.SIGKILL)
    wait_until(suspects.has_ended, "the end of the process for suspects")
    decoders.poll(3_600.0)
    assert shows(decoders.submit(unit(units[0], key=6), 3_600.0), 0)
    assert "crashed" not in decoders.counts
    # Another failure makes the camera a suspect again.
    fails(decoders.submit(unit(b"\0\0\1\x65garbage", key=9), 3_600.0), BadPixelsError)
    assert shows(decoders.submit(unit(units[0], key=12), 3_600.0), 0)
    assert decoders.counts["crashed"] == 1  # the process that had ended was noticed only now


def test_a_picture_of_another_size_than_its_header_is_rejected(make: Make) -> None:
    decoders = make()
    big = encode_alone(Planes(np.zeros((1088, 1920), np.uint8), None, None))
    fails(decoders.submit(unit(big), 0.0), BadPixelsError)
    small = encode_alone(Planes(np.zeros((64, 64), np.uint8), None, None))
    assert "64x64" in fails(decoders.submit(unit(small, key=1), 0.0), BadPixelsError)


def test_sizes_are_bounded_before_a_process_starts(make: Make, processes: Processes) -> None:
    decoders = make(most_pixels=HEIGHT * WIDTH - 1)
    assert "Set the camera's size" in fails(decoders.submit(unit(chain(1)[0]), 0.0), OverSizeError)
    assert not processes.started


def test_a_frame_of_another_size_than_its_group_is_rejected(make: Make) -> None:
    decoders = make()
    units = chain(2)
    decoders.submit(unit(units[0]), 0.0)
    fails(decoders.submit(unit(units[1], 1, height=80), 0.0), MalformedError)


def test_a_killed_process_fails_one_group_and_the_others_continue(
    make: Make, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoders = make()
    units = chain(4)
    for camera in (DOOR, GATE):
        assert shows(decoders.submit(unit(units[0], camera=camera), 0.0), 0)
        assert shows(decoders.submit(unit(units[1], 1, camera=camera), 0.0), 1)
    sent = threading.Event()
    send = DecodingProcess._send

    def note(self: DecodingProcess, request: Request) -> None:
        send(self, request)
        sent.set()

    monkeypatch.setattr(DecodingProcess, "_send", note)
    os.kill(processes.started[0].pid, signal.SIGSTOP)
    failed = decoders.submit(unit(units[2], 2), 0.0)
    assert sent.wait(WAIT_S)
    os.kill(processes.started[0].pid, signal.SIGKILL)
    assert "crashed" in fails(failed, DecoderLostError)
    assert shows(decoders.submit(unit(units[2], 2, camera=GATE), 0.0), 2)
    fails(decoders.submit(unit(units[3], 3), 0.0), MissingReferenceError)
    # The camera's next group is decoded in another process.
    assert shows(decoders.submit(unit(units[0], key=9), 0.0), 0)
    assert len(processes.started) == 4  # one waits for the next loss
    assert decoders.counts["crashed"] == 1
    assert decoders.counts["reopened"] == 1


def test_a_process_that_ends_between_two_units_fails_no_group(make: Make, processes: Processes) -> None:
    decoders = make()
    units = chain(3)
    for camera in (DOOR, GATE):
        assert shows(decoders.submit(unit(units[0], camera=camera), 0.0), 0)
    os.kill(processes.started[0].pid, signal.SIGKILL)
    wait_until(processes.started[0].has_ended, "the end of the process")
    for camera in (DOOR, GATE):
        assert shows(decoders.submit(unit(units[1], 1, camera=camera), 0.0), 1)
    assert decoders.counts["crashed"] == 1
    assert decoders.counts["reopened"] == 2


def test_a_hanging_process_is_replaced(make: Make, processes: Processes) -> None:
    decoders = make(timeout_s=2.0)
    units = chain(2)
    assert shows(decoders.submit(unit(units[0]), 0.0), 0)
    os.kill(processes.started[0].pid, signal.SIGSTOP)
    assert "hung" in fails(decoders.submit(unit(units[1], 1), 0.0), DecoderLostError)
    assert decoders.counts["hung"] == 1


def test_decoders_are_closed_and_opened_again_from_their_groups(make: Make) -> None:
    decoders = make(open_pixels=HEIGHT * WIDTH)
    units = chain(3)
    for place in range(3):
        for camera in (DOOR, GATE):
            assert shows(decoders.submit(unit(units[place], place, camera=camera), 0.0), place)
    assert decoders.counts["reopened"] == 4


def test_the_decoders_of_many_small_pictures_fit_into_the_memory_of_a_process(make: Make) -> None:
    decoders = make(open_pixels=DecodingSettings.open_pixels // 16, process_bytes=DecodingSettings.process_bytes // 16)
    (data,) = chain(1)
    for key in range(150):
        assert shows(decoders.submit(unit(data, key=key, captured_ms=key), 0.0), 0)
    assert decoders.counts == {"decoded": 150}


def test_decoders_that_fill_the_memory_of_a_process_reject_no_unit(make: Make, processes: Processes) -> None:
    decoders = make(process_bytes=2**26)
    (data,) = chain(1)
    for number in range(200):
        assert shows(decoders.submit(unit(data, camera=CameraId(f"site/cam-{number}")), 0.0), 0)
    assert decoders.counts == {"decoded": 200}
    assert len(processes.started) > 2  # the first one, and one that waits for its loss


def test_units_in_memory_are_bounded(make: Make) -> None:
    units = chain(3)
    decoders = make(open_pixels=HEIGHT * WIDTH, held_bytes=len(units[0]) + 1)
    for camera in (DOOR, GATE):
        assert shows(decoders.submit(unit(units[0], camera=camera), 0.0), 0)
    assert decoders.held_bytes <= len(units[0]) + 1
    assert "not held" in fails(decoders.submit(unit(units[1], 1), 0.0), MissingReferenceError)


def test_after_a_takeover_groups_keep_their_units_and_those_without_room_fail_by_name(make: Make) -> None:
    units = chain(3)
    size = len(units[0]) + len(units[1])
    decoders = make(held_bytes=8 * size)
    cameras = [CameraId(f"site/cam-{number}") for number in range(11)]
    for camera in cameras[:10]:
        for place in range(2):
            decoders.restore(unit(units[place], place, camera=camera))
    assert decoders.held_bytes <= 8 * size
    done = [decoders.submit(unit(units[2], 2, camera=camera), 0.0) for camera in cameras[:10]]
    assert all(shows(each, 2) for each in done[:8])
    assert all("is missing" in fails(each, MissingReferenceError) for each in done[8:])
    decoders.restore(unit(units[0], camera=cameras[10]))  # groups without frames under way make room
    assert shows(decoders.submit(unit(units[1], 1, camera=cameras[10]), 0.0), 1)


def test_the_units_of_a_restored_group_are_kept_for_as_long_as_a_group_may_last(make: Make) -> None:
    units = chain(2)
    decoders = make(held_bytes=len(units[0]))
    for now_s, camera, restored in ((0.0, DOOR, 1), (59.0, GATE, 1), (61.0, CameraId("site/cam-2"), 2)):
        decoders.poll(now_s)
        decoders.restore(unit(units[0], camera=camera))
        assert decoders.counts["restored"] == restored


@pytest.mark.parametrize("patience_s", [0.01, 0.9999], ids=["on a quiet machine", "on a busy machine"])
def test_a_process_that_waits_for_a_core_gets_more_time_and_one_that_is_stopped_does_not(
    make: Make, processes: Processes, monkeypatch: pytest.MonkeyPatch, patience_s: float
) -> None:
    decoders = make(timeout_s=1.0)
    units = chain(2)
    assert shows(decoders.submit(unit(units[0]), 0.0), 0)
    process = processes.started[0]
    wait_until(lambda: not process._is_starved(1e9), "a process that waits for a request")
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    assert not process._is_starved(1e9)
    decoders._patience.seconds = patience_s

    def is_starved(least_s: float) -> bool:
        left_s = least_s - process.used_s()
        os.kill(process.pid, signal.SIGCONT)
        return left_s > 0.1

    monkeypatch.setattr(process, "_is_starved", is_starved)
    assert shows(decoders.submit(unit(units[1], 1), 0.0), 1)
    assert "hung" not in decoders.counts


def test_cameras_take_turns(make: Make, processes: Processes) -> None:
    decoders = make()
    units = chain(40)
    assert shows(decoders.submit(unit(units[0]), 0.0), 0)
    os.kill(processes.started[0].pid, signal.SIGSTOP)
    burst = [decoders.submit(unit(units[place], place), 0.0) for place in range(1, 40)]
    other = decoders.submit(unit(units[0], camera=GATE), 0.0)
    other.add_done_callback(lambda _: left.append(sum(not each.done() for each in burst)))
    left: list[int] = []
    os.kill(processes.started[0].pid, signal.SIGCONT)
    assert shows(burst[-1], 39)
    assert left[0] >= 37


def test_discarding_a_camera_cancels_and_frees_its_units(make: Make) -> None:
    decoders = make()
    units = chain(2)
    waiting = decoders.submit(unit(units[1], 1), 0.0)
    decoders.discard(DOOR)
    with pytest.raises(CancelledError):
        waiting.result(WAIT_S)
    assert decoders.held_bytes == 0
    assert shows(decoders.submit(unit(units[0]), 0.0), 0)


@pytest.mark.parametrize(
    ("attempt", "limit"),
    [
        ("open('/etc/passwd')", "system calls"),
        ("open('/tmp/written-by-a-decoder', 'w')", "system calls"),
        ("socket.socket().connect(('127.0.0.1', 9))", "system calls"),
        ("socket.socket()", "descriptors"),
        ("os.fork()", "processes"),
        ("os.kill(os.getppid(), 0)", "system calls"),
        ("bytearray(2**30)", "memory"),
    ],
)
def test_a_confined_process_cannot_exceed_its_limits(attempt: str, limit: str) -> None:
    program = f"""
import os, socket, sys
from processors.decoding.sandbox import confine
limits = confine(2**28)
try:
    {attempt}
except (OSError, MemoryError):
    sys.stdout.write("refused " if {limit!r} in limits else "unlimited ")
else:
    sys.stdout.write("allowed " if {limit!r} in limits else "unlimited ")
sys.stdout.flush()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    if done.stdout == "unlimited " and limit == CALLS:
        pytest.skip("this kernel accepts no filter of system calls")
    assert done.stdout == "refused ", done.stderr


def test_a_confined_process_has_all_limits_that_need_no_right_of_the_kernel() -> None:
    program = """
import json, sys
from processors.decoding.sandbox import confine
sys.stdout.write(json.dumps(confine(2**28)))
sys.stdout.flush()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    held = set(json.loads(done.stdout))
    assert held >= {"memory", "descriptors", "processes", "files", "core", "cpu", "no new privileges"}, done.stderr


def test_a_decoding_process_gets_no_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTILLIST_SECRET", "not for decoders")
    process = DecodingProcess(64 * 64, 2**28)
    try:
        assert "memory" in process.limits()
        # `confine` makes the environment unreadable to other processes of the same user, except for root's.
        try:
            with open(f"/proc/{process.pid}/environ", "rb") as file:  # noqa: PTH123  # procfs
                assert b"POINTILLIST_SECRET" not in file.read()
        except PermissionError:
            pass
    finally:
        process.kill()


def test_each_mutated_unit_has_a_counted_outcome_and_other_cameras_are_unaffected(make: Make) -> None:
    decoders = make(timeout_s=20.0)
    random = np.random.default_rng(4)
    whole = {codec: chain(3, codec) for codec in Codec}
    codecs = list(Codec)
    done = []
    for number in range(200):
        codec = codecs[number % 2]
        group = [bytearray(each) for each in whole[codec]]
        changed = group[number // 2 % 3]
        for at in random.integers(0, len(changed), 1 + number % 5):
            changed[at] = random.integers(0, 256)
        done += [
            decoders.submit(unit(bytes(each), place, key=3 * number, codec=codec), 0.0)
            for place, each in enumerate(group)
        ]
    outcomes = [type(each.exception(WAIT_S)) for each in done]
    assert set(outcomes) <= {type(None), BadPixelsError, MissingReferenceError, DecoderLostError}
    assert len(outcomes) == 600
    counts = decoders.counts
    assert outcomes.count(type(None)) == counts["decoded"]
    assert outcomes.count(BadPixelsError) == counts.get("refused", 0) > 0
    assert outcomes.count(DecoderLostError) == counts.get("crashed", 0) + counts.get("hung", 0)
    assert shows(decoders.submit(unit(whole[Codec.H264][0], camera=GATE), 0.0), 0)


def test_an_undecoded_video_frame_is_rejected_by_the_pixel_decoder() -> None:
    message = GroupEncoder(camera_key("site/cam-0"), VideoSettings()).encode(
        luma(0)[..., None], 7, 0, 1000, Encoding(16)
    )
    frame = verified_job(message)
    masks = torch.ones(1, 1, HEIGHT, WIDTH, dtype=torch.bool)
    found = decoded_batch([frame], masks, masks)
    assert "expected profile RAW (0) or LOSSLESS (1), got 2" in str(found.refused[0])
    assert not found.good
