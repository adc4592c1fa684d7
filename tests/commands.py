"""Commands of `pointillist`, each in a process forked from a parent that has loaded the modules of all commands.

A new interpreter imports for a second before it rejects an argument. The first command of a test session starts the
parent, which loads no torch and ends with the session.
"""

from __future__ import annotations

import atexit
import gc
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
LOADED: Final = (
    "consumers.console.role",
    "consumers.recorder.recorder",
    "infra.audit.audit",
    "infra.monitor.service",
    "infra.preflight.brokers",
    "infra.preflight.database",
    "infra.preflight.kafka_rights",
    "infra.up.run",
    "producers.bridge",
    "producers.simulation.simulated_fleet",
)
"""Modules that commands import when they run."""
_ALONE: Final = threading.Lock()


def run_command(
    *arguments: object,
    environment: Mapping[str, str] | None = None,
    stdin: str = "",
    folder: Path | None = None,
    within_s: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run `pointillist` with the arguments; SIGALRM stops it after `within_s` seconds.

    If `environment` or `folder` is None, the command gets those of the test.
    """
    with tempfile.TemporaryDirectory() as place:
        files = [str(Path(place) / name) for name in ("in", "out", "err")]
        words = [*map(str, arguments)]
        Path(files[0]).write_text(stdin)
        request = {
            "arguments": words,
            "environment": dict(os.environ if environment is None else environment),
            "folder": str(folder or Path.cwd()),
            "files": files,
            "within_s": within_s,
        }
        parent = _parent()
        assert parent.stdin is not None
        assert parent.stdout is not None
        with _ALONE:
            parent.stdin.write(json.dumps(request) + "\n")
            parent.stdin.flush()
            status = int(parent.stdout.readline())
        out, err = (Path(name).read_text() for name in files[1:])
    return subprocess.CompletedProcess(words, status, out, err)


@cache
def _parent() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", __name__]
    parent = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(parent.communicate)
    return parent


def _fork_for_each_request() -> dict[str, Any] | None:
    """Fork for each line of standard input and print its exit status; return in the child, None at the end."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            request: dict[str, Any] = json.loads(line)
            return request
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


def main() -> None:
    """Serve the commands of one test session."""
    from infra import cli

    cli.register()
    for module in LOADED:
        import_module(module)
    # A collection would touch, and so copy, all memory that the children share.
    gc.collect()
    gc.freeze()
    gc.disable()
    request = _fork_for_each_request()
    if request is None:
        return
    for number, name in enumerate(request["files"]):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.chdir(request["folder"])
    signal.alarm(math.ceil(request["within_s"]))
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["pointillist", *request["arguments"]]
    status = 1
    try:
        cli.main()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    # Skip the slow teardown of all loaded modules.
    os._exit(status)


if __name__ == "__main__":
    main()
