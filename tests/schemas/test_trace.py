"""Stamps of frames in a trace file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.identity import CameraId, Identity
from schemas.runtime import trace

FRAME = Identity(CameraId("hall/door"), 0xAB, 7)


@pytest.fixture(autouse=True)
def end_trace() -> Iterator[None]:
    yield
    trace.end()


def test_without_a_folder_nothing_is_stamped(tmp_path: Path) -> None:
    assert not trace.on()
    trace.stamp("captured", FRAME)
    trace.end()
    assert not list(tmp_path.iterdir())


def test_stamps_are_lines_of_time_stamp_and_frame_in_a_file_for_each_process(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    trace.begin(folder, "bridge")
    assert trace.on()
    before_ns = time.time_ns()
    trace.stamp("captured", FRAME, at_ns=5)
    trace.stamp("received", FRAME, "hall/door/00000000000000ab/8")
    trace.end()
    assert not trace.on()
    (file,) = folder.iterdir()
    assert file.name == f"bridge-{os.getpid()}.tsv"
    first, second, third = (line.split("\t") for line in file.read_text().splitlines())
    assert first == ["5", "captured", "hall/door/00000000000000ab/7"]
    assert second[1:] == ["received", "hall/door/00000000000000ab/7"]
    assert third[1:] == ["received", "hall/door/00000000000000ab/8"]
    assert before_ns <= int(second[0]) == int(third[0]) <= time.time_ns()


def test_stamps_are_written_within_half_a_second_of_the_next_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = 10**18
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)
    trace.begin(tmp_path, "fleet")
    trace.stamp("captured", FRAME)
    (file,) = tmp_path.iterdir()
    assert file.read_text() == ""
    now_ns += int(trace.WRITE_AFTER_S * 1e9) + 1
    trace.stamp("spooled", FRAME)
    assert file.read_text().count("\n") == 2
    now_ns -= 10**12  # the clock is set back
    trace.stamp("confirmed", FRAME)
    assert file.read_text().count("\n") == 3


def test_a_full_disk_raises_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    trace.begin(tmp_path, "recorder")
    monkeypatch.setattr(os, "write", full)
    trace.stamp("gathered", FRAME)
    trace.end()


def test_stamps_written_while_others_arrive_are_written_once(tmp_path: Path) -> None:
    trace.begin(tmp_path, "bridge")
    assert trace._active is not None
    active = trace._active

    def frames() -> Iterator[str]:
        active.write()  # as another thread does
        yield "second"

    trace.stamp("received", "first")
    active.note("received", frames(), None)
    trace.end()
    (file,) = tmp_path.iterdir()
    assert [line.split("\t")[2] for line in file.read_text().splitlines()] == ["first", "second"]
