"""Failures of a part of a measurement, which end it without an endless wait and without a figure."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import httpx2
import psutil
import pytest
import torch

from benchmarks.harness.recorder_store import NO_BROKER
from benchmarks.harness.system import RunningSystem, undisturbed
from benchmarks.scale import console, recorder
from benchmarks.speed import pipeline
from benchmarks.speed.preprocess import batch_executor, compare, taken_frames
from benchmarks.speed.receive import bare_receive_seconds
from processors.arrivals.job import Shape
from processors.bundle import shipped_bundle
from processors.device.compiled_pipeline import CompiledPipeline
from schemas.errors import StageError


def test_a_recorder_that_fails_ends_the_measurement() -> None:
    with pytest.raises(EOFError):
        recorder._in_a_process(int, "no recorder")


def test_a_receiver_that_fails_ends_the_measurement() -> None:
    with pytest.raises(EOFError):
        bare_receive_seconds("127.0.0.1", 1, b"x", 10)


def test_a_system_that_ends_before_its_first_frame_ends_the_warm_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(RunningSystem):
        def __init__(self) -> None:
            self.state, self.log = tmp_path, tmp_path / "log"
            self.log.write_text("the processor failed")
            self.process = cast(Any, subprocess.Popen([sys.executable, "-c", ""]))
            self.process.wait()

        def await_role(self, *_: object, **__: object) -> int:
            return 1

    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waits on"))
    with pytest.raises(RuntimeError, match="the processor failed"):
        pipeline.warm_up(Ended())


def test_a_run_with_a_restarted_role_has_no_figures() -> None:
    assert undisturbed({"restarts": {}}, "") == {"restarts": {}}
    with pytest.raises(RuntimeError, match=r"expected no restart in a measurement, got \{'recorder': 1\}: printed"):
        undisturbed({"restarts": {"recorder": 1}}, "printed")
    with pytest.raises(RuntimeError, match="expected a report, got none: printed"):
        undisturbed({}, "printed")


def test_a_stage_that_fails_has_no_frames_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Shape(32, 32, 3)
    executor = batch_executor(shipped_bundle("cifar10"), torch.device("cpu"), shape, 1)
    frames = taken_frames(shape, 1, 0.25)

    def fail(*_: object) -> None:
        raise RuntimeError("no such table")

    monkeypatch.setattr(CompiledPipeline, "__call__", fail)
    with pytest.raises(StageError, match="no such table"):
        compare(executor, executor, frames, 1, 0.001)


async def test_without_a_console_the_memory_of_viewers_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sending(*_: object) -> None:
        await asyncio.Event().wait()

    async def sleep(_: float) -> None:
        """Wait until the first viewer ends, if there are viewers."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if len(tasks) > 1:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    monkeypatch.setattr(console, "sending", sending)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(httpx2.ConnectError):
        await console.ten_viewers("127.0.0.1:1", f"http://{NO_BROKER}", psutil.Process(), 4)
