"""The floods of the console: a crowd that fails, and results of another length."""

from __future__ import annotations

import socket
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

from benchmarks.security.floods.__main__ import main
from benchmarks.security.floods.crowd import Crowd, Habit, besiege
from schemas.runtime.json_files import write_json

HABIT = Habit((b"GET / HTTP/1.1\r\n",))
FOREIGN_ADDRESS = "203.0.113.9"


def test_a_crowd_that_cannot_open_connections_reports_the_reason_instead_of_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = get_context("spawn")
    begins, ends, counts = context.Event(), context.Event(), context.Queue()
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    monkeypatch.setattr(Crowd, "close", lambda crowd: crowd._thread.join())
    ends.set()
    with socket.create_server(("127.0.0.1", 0)) as server:
        besiege(server.getsockname(), HABIT, 10, 1000.0, (FOREIGN_ADDRESS,), begins, ends, counts)
    assert "Cannot assign" in counts.get(timeout=60)


def test_results_of_floods_of_another_length_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.security.floods.__main__.run", lambda *_: [])
    write_json(tmp_path / "floods.json", {"seconds": 12.0, "floods": []})
    monkeypatch.setattr(sys, "argv", ["floods", "logins", "--out", str(tmp_path), "--seconds", "5"])
    with pytest.raises(SystemExit, match=r"--seconds: expected 12 as in .*, got 5"):
        main()
