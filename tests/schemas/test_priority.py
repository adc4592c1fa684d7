"""The lowest priority of a process and of its session."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from schemas.runtime.priority import AUTOGROUP

PROGRAM = """
import os
from schemas.runtime.priority import lower_priority
lower_priority()
print(os.nice(0), *open("/proc/self/autogroup").read().split()[-2:])
"""


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel has no autogroups")
def test_a_process_of_its_own_session_lowers_itself_and_the_session() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", PROGRAM]
    lowered = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, start_new_session=True)
    assert lowered.stdout.split() == ["19", "nice", "19"]
