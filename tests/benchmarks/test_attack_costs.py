"""Failures that an attack may cause, and that must not be measured as a short time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.system import RunningSystem
from benchmarks.security.attacks._costs import audit_s, end_s

ENDS_BY_ITSELF = "raise SystemExit(1)"
ENDS_AT_CTRL_C = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
try:
    print(flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    pass
"""


def system(program: str, report: dict[str, Any]) -> RunningSystem:
    """Return a system whose `up` is this program."""
    running = RunningSystem.__new__(RunningSystem)
    running.process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert running.process.stdout is not None
    running.process.stdout.readline()
    running.process.stdout.close()
    running.wait = lambda deadline_s: (running.process.wait(deadline_s), report)  # type: ignore[method-assign]
    return running


def test_a_crashed_up_has_no_shutdown_time() -> None:
    crashed = system(ENDS_BY_ITSELF, {"frames_lost": 0})
    crashed.process.wait()
    assert end_s(crashed) is None
    assert end_s(system(ENDS_AT_CTRL_C, {})) is None
    found = end_s(system(ENDS_AT_CTRL_C, {"frames_lost": 0}))
    assert found is not None
    assert found >= 0


def test_a_failed_audit_has_no_duration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.security.attacks._costs.COMMAND", (sys.executable, "-c", "raise SystemExit(1)"))
    assert audit_s(tmp_path) is None
    monkeypatch.setattr("benchmarks.security.attacks._costs.COMMAND", (sys.executable, "-c", "print('{}')"))
    assert audit_s(tmp_path) is not None
