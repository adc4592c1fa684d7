"""Work in daemon threads: results, errors, and the end of the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from schemas.runtime.daemon_thread import run_in_daemon_thread


async def test_endless_work_blocks_no_other_work() -> None:
    never = threading.Event()
    stuck = [run_in_daemon_thread(never.wait, f"stuck-{number}") for number in range(100)]
    assert await asyncio.wait_for(run_in_daemon_thread(lambda: 7, "quick"), 60) == 7
    assert not any(future.done() for future in stuck)
    never.set()
    await asyncio.gather(*stuck)


async def test_an_exception_of_the_work_is_raised_by_its_future() -> None:
    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await run_in_daemon_thread(fail, "fails")


async def test_a_cancelled_future_accepts_no_result() -> None:
    gate = threading.Event()
    future = run_in_daemon_thread(gate.wait, "late")
    future.cancel()
    gate.set()
    await asyncio.sleep(0)
    assert future.cancelled()


def test_a_command_ends_without_the_end_of_the_interpreter_while_a_thread_runs() -> None:
    program = (
        "import atexit, sys, threading\n"
        "from infra.cli import main\n"
        "from schemas.runtime.daemon_thread import start_daemon_thread\n"
        "atexit.register(print, 'interpreter ended')\n"
        "start_daemon_thread({}, 'reader')\n"
        "sys.argv = ['pointillist', '--version']\n"
        "main()\n"
    )
    for work, ends in (("threading.Event().wait", False), ("int", True)):
        command = [sys.executable, "-c", program.format(work)]
        printed = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout
        assert printed.startswith("pointillist ")
        assert ("interpreter ended" in printed) == ends


def test_a_process_ends_despite_endless_work() -> None:
    program = (
        "import asyncio, threading\n"
        "from schemas.runtime.daemon_thread import run_in_daemon_thread\n"
        "async def main():\n"
        "    run_in_daemon_thread(threading.Event().wait, 'stuck')\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
