"""The lowest priority of a process and of its session."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from schemas.runtime import priority
from schemas.runtime.priority import AUTOGROUP, same_scheduling

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


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="this system has no policies for threads")
def test_a_block_leaves_the_scheduling_of_old_and_new_threads_as_it_was() -> None:
    end, own = threading.Event(), threading.get_native_id()
    threads = [threading.Thread(target=end.wait) for _ in range(2)]

    def policies() -> set[int]:
        return {os.sched_getscheduler(each.native_id or 0) for each in threads if each.is_alive()}

    before = os.sched_getscheduler(own)
    threads[0].start()
    try:
        with same_scheduling():
            os.sched_setscheduler(threads[0].native_id or 0, os.SCHED_BATCH, os.sched_param(0))
            os.sched_setscheduler(own, os.SCHED_BATCH, os.sched_param(0))
            threads[1].start()
            assert policies() == {os.SCHED_BATCH}
        assert policies() == {before}
        assert os.sched_getscheduler(own) == before
    finally:
        end.set()


def test_a_system_that_is_busy_is_asked_again_and_one_that_refuses_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []

    class Autogroup:
        refusals: ClassVar[list[OSError]] = []

        def write_text(self, text: str, encoding: str) -> None:
            if self.refusals:
                raise self.refusals.pop()
            said.append(text)

    monkeypatch.setattr(priority, "AUTOGROUP", Autogroup())
    monkeypatch.setattr(priority, "_RETRY_S", 0.0)
    Autogroup.refusals = [BlockingIOError(), BlockingIOError()]
    priority._lower_session(7)
    assert said == ["7"]
    Autogroup.refusals = [PermissionError()]
    priority._lower_session(8)
    assert said == ["7"]
