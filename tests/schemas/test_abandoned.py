"""The end of a process whose threads hang."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


@pytest.mark.parametrize(("arguments", "status"), [(["--version"], 0), (["nosuchcommand"], 2)])
def test_a_command_ends_with_its_status_though_abandoned_work_never_does(arguments: list[str], status: int) -> None:
    program = textwrap.dedent(
        f"""
        import sys, threading
        from concurrent.futures import ThreadPoolExecutor
        from infra.cli import main
        from schemas.runtime.abandoned import abandon

        abandon(ThreadPoolExecutor(1).submit(threading.Event().wait))
        sys.argv = ["pointillist", *{arguments!r}]
        main()
        """
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == status
    assert ("pointillist " in ended.stdout) == (status == 0)


def test_a_bug_ends_a_process_with_its_traceback_though_abandoned_work_never_does() -> None:
    program = textwrap.dedent(
        """
        import threading
        from concurrent.futures import ThreadPoolExecutor
        from schemas.runtime.abandoned import abandon, end_process

        abandon(ThreadPoolExecutor(1).submit(threading.Event().wait))
        try:
            raise KeyError("lost")
        except KeyError as error:
            end_process(error)
        """
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, "KeyError: 'lost'" in ended.stderr) == (1, True)
