"""The steps of the report of a GPU, run on a CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Self

import pytest

from benchmarks.harness.system import SHOWN, Result
from benchmarks.pages.cases import CASES
from benchmarks.pages.figure import sources
from benchmarks.pages.figures import NAMES
from benchmarks.speed import gpu_report
from benchmarks.speed.gpu_report import START_S, STEPS, STOP_S, in_process
from infra.local.process import ProcessId
from schemas.runtime.atomic_file import write_text
from tests.infra.command_line import parse_arguments
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
PAGES = Path(gpu_report.__file__).parents[1] / "pages"


class FinishedSystem:
    """A finished system in place of the step's own `up`, which the tests of whole systems run."""

    def __init__(self, state: Path, *options: object) -> None:
        assert parse_arguments(["up", "--state", str(state), *map(str, options)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def await_role(self, role: str) -> None:
        assert role == "fleet"

    def resident_bytes(self, role: str) -> int:
        assert role == "processor-1"
        return 2**28

    def finish(self) -> Result:
        return {**dict.fromkeys(SHOWN, 0), "latency_s": {"p99": 0.1}}


def passed(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
    """Return a success in place of a pytest run on these files, which are part of this suite."""
    files = [word for word in command if word.startswith("tests/")]
    assert files
    assert all((ROOT / file).is_file() for file in files)
    return subprocess.CompletedProcess(command, 0, "....\n== 4 passed in 0.10s ==\n")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_steps_run_on_a_cpu_and_fill_the_rows_of_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, in_this_process = tmp_path / "gpu" / "report.json", ("device", "harden")
    steps = [name for name in STEPS if name not in {"up", "tests", *in_this_process}]
    command = [sys.executable, "-m", "benchmarks.speed.gpu_report", *steps]
    command += ["--device", "cpu", "--short", "--json", str(file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=580)
    document = json.loads(file.read_text())
    assert {name: step["outcome"] for name, step in document["outcomes"].items()} == dict.fromkeys(steps, "measured")
    assert done.returncode == 0
    # Each new process would import the many modules of these steps again.
    document["results"] |= {name: STEPS[name].run(True) for name in in_this_process}
    monkeypatch.setattr(gpu_report, "RunningSystem", FinishedSystem)
    monkeypatch.setattr(gpu_report, "summary", lambda report, state: report)
    monkeypatch.setattr("benchmarks.speed.gpu_report.time.sleep", lambda seconds: None)
    document["results"]["up"] = gpu_report.up(short=True)
    monkeypatch.setattr("benchmarks.speed.gpu_report.subprocess.run", passed)
    document["results"]["tests"] = gpu_report.tests(short=False)
    assert document["results"]["tests"] == gpu_report.tests(short=True) == {"summary": "4 passed in 0.10s"}
    # Without a GPU there is no roofline.
    fast = {"frames_per_second": 1.0, "roofline_share": 0.5}
    document["results"]["device"] |= {"small": fast, "large": fast}
    file.write_text(json.dumps(document))
    rows = [
        row
        for page in NAMES
        for source in sources(PAGES / f"{page}.toml", CASES)
        if source.file == "gpu/report.json"
        for row in source.rows(tmp_path)
    ]
    assert rows
    assert not [row.what for row in rows if row.measured == "not measured"]


def fail() -> dict[str, object]:
    raise OSError("driver is missing")


def hang() -> dict[str, object]:
    signal.pause()
    return {}


def die() -> dict[str, object]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_error_of_a_step_that_fails_hangs_or_dies_is_reported() -> None:
    assert in_process(fail, 60)["error"] == "OSError: driver is missing"
    assert in_process(hang, 0.2)["error"] == "expected to end within 0.2 s"
    assert in_process(die, 60)["error"] == "the process ended without a result"
    assert in_process(dict, 60)["outcome"] == "measured"


def run_long(file: Path) -> dict[str, object]:
    write_text(file, str(os.getpid()))
    time.sleep(60)
    return {}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_ctrl_c_ends_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, limit_s, join = tmp_path / "pid", 61.0, ForkProcess.join

    def interrupted(process: ForkProcess, timeout: float | None = None) -> None:
        if timeout != limit_s:
            join(process, timeout)
            return
        wait_until(file.exists, "the running step")
        raise KeyboardInterrupt

    monkeypatch.setattr(ForkProcess, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_process(partial(run_long, file), limit_s)
    assert ProcessId.of(int(file.read_text())) is None


def test_all_steps_fit_into_25_minutes() -> None:
    assert sum(step.limit_s + 2 * STOP_S for step in STEPS.values()) + START_S <= 25 * 60
