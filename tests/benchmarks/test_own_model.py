"""The time from a network's file to its first verdict."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.models.own_model import cpu_seconds

BURN = "import time\nwhile time.process_time() < 0.3: pass"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}]); print('done', flush=True); input()"


def test_the_cpu_time_of_a_bundle_includes_child_processes() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        assert cpu_seconds(process.pid) >= 0.3
        process.communicate("\n")
