"""A part of a measurement that fails ends it: no endless wait, and no figure of what did not run."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks.harness.system import RunningSystem
from benchmarks.scale import recorder
from benchmarks.speed import pipeline
from benchmarks.speed.receive import bare_receive_seconds


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
