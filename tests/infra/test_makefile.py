"""What `make` says of a run that a person ended."""

from __future__ import annotations

import os
import pty
import sys
import time
from pathlib import Path

from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
RUN = f"""#!{sys.executable}
import signal
import time
from infra.up.terminal import own_foreground

with own_foreground():
    asked = []
    signal.signal(signal.SIGINT, lambda *_: asked.append(1))
    print("ready", flush=True)
    while not asked:
        time.sleep(0.02)
    print("drained", flush=True)
"""


def read_until(terminal: int, word: bytes, deadline_s: float = PATIENCE_S) -> None:
    end, seen = time.monotonic() + deadline_s, b""
    while word not in seen:
        assert time.monotonic() < end, seen
        seen += os.read(terminal, 4096)


def test_ctrl_c_on_make_up_gives_the_status_of_the_run(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "pointillist"
    program.parent.mkdir()
    program.write_text(RUN)
    program.chmod(0o755)
    pid, terminal = pty.fork()
    if pid == 0:
        # Nothing but exec may happen here: pytest's own state was forked along.
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
