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
def test_a_session_leader_lowers_itself_and_its_session() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", PROGRAM]
    lowered = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, start_new_session=True)
    assert lowered.stdout.split() == ["19", "nice", "19"]


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="this system has no policies for threads")
def test_a_block_restores_the_scheduling_of_old_and_new_threads() -> None:
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


def test_a_busy_system_is_retried_and_a_rejection_is_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []

    class Autogroup:
        refusals: ClassVar[list[OSError]] = []

        def write_text(self, text: str, encoding: str) -> None:
            if self.refusals:
                raise self.refusals.pop()
            written.append(text)

    monkeypatch.setattr(priority, "AUTOGROUP", Autogroup())
    monkeypatch.setattr(priority, "_RETRY_S", 0.0)
    Autogroup.refusals = [BlockingIOError(), BlockingIOError()]
    priority._lower_session(7)
    assert written == ["7"]
    Autogroup.refusals = [PermissionError()]
    priority._lower_session(8)
    assert written == ["7"]
