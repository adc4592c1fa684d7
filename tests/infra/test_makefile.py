"""The Makefile: the status of an interrupted run, and the setup after `make clean`."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
RUN = f"""#!{sys.executable}
import signal
import time
from infra.up.foreground import own_foreground

with own_foreground():
    interrupts = []
    signal.signal(signal.SIGINT, lambda *_: interrupts.append(1))
    print("ready", flush=True)
    while not interrupts:
        time.sleep(0.02)
    print("drained", flush=True)
"""


def read_until(terminal: int, word: bytes, deadline_s: float = PATIENCE_S) -> None:
    end, seen = time.monotonic() + deadline_s, b""
    while word not in seen:
        assert time.monotonic() < end, seen
        seen += os.read(terminal, 4096)


def test_ctrl_c_on_make_up_returns_the_status_of_the_run(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "pointillist"
    program.parent.mkdir()
    program.write_text(RUN)
    program.chmod(0o755)
    pid, terminal = pty.fork()
    if pid == 0:
        # The child has a copy of pytest's state, and may only call exec.
        os.chdir(ROOT)
        os.execvp("make", ["make", "--old-file=setup", "up", f"VENV={tmp_path}"])
    try:
        read_until(terminal, b"ready")
        os.write(terminal, b"\x03")
        read_until(terminal, b"drained")
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0


def test_setup_after_clean_installs_npm_again(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in (".venv/pyvenv.cfg", "package.json", "package-lock.json", "requirements/assets.txt", ".venv/.assets"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def make(*arguments: str) -> str:
        command = ["make", "UV=uv", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60).stdout

    assert "npm" not in make("--dry-run", ".venv/.assets")
    make("clean")
    assert "npm" in make("--dry-run", ".venv/.assets")
