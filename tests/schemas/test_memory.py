from __future__ import annotations

import platform
import subprocess
import sys

PROGRAM = """
import gc
from schemas.runtime.memory import THRESHOLDS, collect_seldom, keep_freed
before = len(gc.get_objects())
collect_seldom()
assert gc.get_threshold() == THRESHOLDS
assert gc.get_freeze_count() > before // 2
assert len(gc.get_objects()) < before // 10
assert gc.isenabled()
print(keep_freed(2**25))
"""


def test_what_is_there_is_looked_through_no_more_and_the_rest_seldom() -> None:
    # In a process of its own: both hold for as long as it lives.
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(platform.libc_ver()[0] == "glibc")
