"""The end of a process whose threads hang."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import Future

import pytest

from schemas.runtime.abandoned import abandon, abandoned, end_process


@pytest.mark.parametrize(("arguments", "status"), [(["--version"], 0), (["nosuchcommand"], 2)])
def test_a_command_ends_with_its_status_despite_abandoned_work(arguments: list[str], status: int) -> None:
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


def test_an_exception_ends_the_process_with_its_traceback_despite_abandoned_work() -> None:
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


class ProcessEnd(BaseException):
    """The end of the process with its status, raised in place of `os._exit`."""


@pytest.mark.parametrize(
    ("error", "status", "output"),
    [
        (SystemExit(), 0, ""),
        (SystemExit(None), 0, ""),
        (SystemExit(3), 3, ""),
        (SystemExit("no such file"), 1, "no such file\n"),
        (KeyError("lost"), 1, "KeyError: 'lost'\n"),
    ],
)
def test_abandoned_work_ends_the_process_with_the_status_of_the_error_and_otherwise_it_continues(
    error: BaseException, status: int, output: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(found: int) -> None:
        raise ProcessEnd(found)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr("schemas.runtime.abandoned._RUNNING", set())
    work: Future[None] = Future()
    abandon(work)
    assert abandoned() == 1
    with pytest.raises(ProcessEnd) as caught:
        end_process(error)
    assert caught.value.args == (status,)
    assert capsys.readouterr().err == output
    work.set_result(None)
    assert abandoned() == 0
    end_process(error)
    assert capsys.readouterr().err == ""
