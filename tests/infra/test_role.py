"""The start of every role: traces and log lines."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.process.log_lines import readable_line
from infra.process.tracing import begin_trace
from schemas.errors import ConfigError
from schemas.runtime import trace


@pytest.fixture(autouse=True)
def end_trace() -> Iterator[None]:
    yield
    trace.end()


def test_stamps_are_written_only_with_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POINTILLIST_TRACE", raising=False)
    begin_trace("bridge")
    assert not trace.on()
    monkeypatch.setenv("POINTILLIST_TRACE", str(tmp_path / "stamps"))
    begin_trace("bridge")
    assert trace.on()
    (file,) = (tmp_path / "stamps").iterdir()
    assert file.name.startswith("bridge-")


def test_an_unwritable_folder_of_stamps_is_one_error_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POINTILLIST_TRACE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"POINTILLIST_TRACE: expected a writable folder, got .*file: File exists"):
        begin_trace("bridge")


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            {"event": "camera_phase_changed", "camera": "yard/car", "phase": "capturing", "reason": "", "width": 768,
             "height": 432, "frames_per_second": 2.0},
            "10:31:02 yard/car capturing 768×432 2/s",
        ),
        (
            {"event": "camera_phase_changed", "camera": "yard/car", "phase": "capturing", "reason": "", "width": 768,
             "height": 432, "frames_per_second": 0},
            "10:31:02 yard/car capturing 768×432 every frame",
        ),
        (
            {"event": "camera_phase_changed", "camera": "yard/car", "phase": "failing", "reason": "No such file"},
            "10:31:02 yard/car failing: No such file",
        ),
        (
            {"event": "source_failed", "level": "error", "camera": "yard/car", "reason": "hung", "error": ""},
            "10:31:02 error: yard/car source failed reason=hung",
        ),
    ],
)  # fmt: skip
def test_an_event_is_printed_as_a_readable_line(event: dict[str, object], line: str) -> None:
    assert readable_line(None, "info", {"timestamp": "2026-11-22T10:31:02.5Z"} | event) == line


def test_events_are_readable_on_a_terminal_and_json_elsewhere() -> None:
    log = "import structlog; from infra.process.role import configure_logs; configure_logs(); "
    command = [
        sys.executable,
        "-c",
        f"{log}structlog.get_logger().info('camera_phase_changed', camera='a/b', phase='capturing')",
    ]
    piped = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    assert json.loads(piped)["phase"] == "capturing"
    terminal, far = pty.openpty()
    try:
        subprocess.run(command, check=True, stderr=far)
        assert re.fullmatch(r"\d\d:\d\d:\d\d a/b capturing\r\n", os.read(terminal, 4096).decode())
    finally:
        os.close(terminal)
        os.close(far)
