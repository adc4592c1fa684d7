from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.process import Child, ProcessId, bound_log, last_lines, terminate
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
SLEEP = ["sleep", "600"]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Child]:
    child = Child(SLEEP, tmp_path / "log")
    child.start()
    yield child
    child.kill()


def test_a_pid_is_matched_with_its_start_time_before_it_is_signalled(sleeper: Child) -> None:
    earlier = ProcessId(sleeper.pid, sleeper.identity.started - 1)
    assert not earlier.alive()
    assert not earlier.send(signal.SIGKILL)
    terminate(earlier, 1.0)
    assert sleeper.poll() is None
    assert sleeper.identity.send(signal.SIGKILL)
    assert sleeper.wait(60) == -signal.SIGKILL


def test_a_poll_by_another_thread_during_a_start_waits_for_the_new_pid(
    sleeper: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper.kill()
    found: list[object] = []
    read = ProcessId.of

    def poll() -> None:
        try:
            found.append(sleeper.poll())
        except OSError as error:
            found.append(error)

    other = threading.Thread(target=poll)

    def poll_during_start(pid: int) -> ProcessId | None:
        monkeypatch.undo()
        other.start()
        other.join(0.3)
        return read(pid)

    monkeypatch.setattr(ProcessId, "of", poll_during_start)
    sleeper.start()
    other.join()
    assert found == [None]


def test_a_name_with_spaces_and_parentheses_does_not_hide_the_start_time(tmp_path: Path) -> None:
    program = tmp_path / "a) R (b"
    program.symlink_to("/bin/sleep")
    child = Child([str(program), "600"], tmp_path / "log")
    identity = child.start()
    try:
        assert identity == ProcessId.of(child.pid)
        assert identity.started > 0
    finally:
        child.kill()


def test_an_ended_child_is_reported_with_its_status_and_its_output(tmp_path: Path) -> None:
    child = Child(["sh", "-c", "echo first; echo last words >&2; exit 7"], tmp_path / "log")
    child.start()
    assert child.wait(60) == 7
    assert last_lines(tmp_path / "log") == "first | last words"
    assert not child.identity.alive()


def test_a_program_that_ignores_sigterm_is_killed_after_the_deadline(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    child = Child(["sh", "-c", f"trap '' TERM; touch {ready}; while :; do sleep 0.05; done"], tmp_path / "log")
    child.start()
    wait_until(ready.exists)
    assert child.stop(0.3) == -signal.SIGKILL


def test_a_paused_program_is_stopped_by_sigterm(sleeper: Child) -> None:
    sleeper.pause()
    assert sleeper.stop(60) == -signal.SIGTERM


@pytest.mark.parametrize("end", ["stop", "kill", "crash"])
def test_the_children_of_a_program_end_with_it(tmp_path: Path, end: str) -> None:
    child = Child(
        ["sh", "-c", f"sleep 600 & echo $! > {tmp_path}/partial; mv {tmp_path}/partial {tmp_path}/pid; wait"],
        tmp_path / "log",
    )
    child.start()
    wait_until((tmp_path / "pid").exists)
    grandchild = ProcessId.of(int((tmp_path / "pid").read_text()))
    assert grandchild is not None
    if end == "crash":
        child.identity.send(signal.SIGSEGV)
        child.wait(60)
    else:
        getattr(child, end)()
    assert grandchild.wait_gone(60)


def test_a_child_survives_the_thread_that_started_it(tmp_path: Path) -> None:
    child = Child(SLEEP, tmp_path / "log")
    thread = threading.Thread(target=child.start)
    thread.start()
    thread.join()
    assert child.wait(0.2) is None
    child.kill()


@pytest.mark.parametrize("in_thread", [False, True])
def test_sigkill_of_the_parent_leaves_no_orphan(tmp_path: Path, in_thread: bool) -> None:
    program = f"""
import threading, time
from pathlib import Path
from infra.local.process import Child
child = Child({SLEEP!r}, Path({str(tmp_path / "log")!r}))
if {in_thread}:
    threading.Thread(target=child.start).start()
    while True:
        try:
            child.pid
            break
        except RuntimeError:
            time.sleep(0.01)
else:
    child.start()
print(child.identity.pid, child.identity.started, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    with parent.stdout:
        orphan = ProcessId(*map(int, parent.stdout.readline().split()))
        assert orphan.alive()
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert orphan.wait_gone(60)


def test_a_child_can_be_started_again_but_not_twice_at_once(sleeper: Child) -> None:
    first = sleeper.identity
    with pytest.raises(RuntimeError, match="expected a stopped program"):
        sleeper.start()
    sleeper.kill()
    assert sleeper.start() != first
    assert sleeper.poll() is None


def test_a_log_is_cut_to_its_tail_and_the_writer_continues_at_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("ab", buffering=0) as writer:
        for number in range(1000):
            writer.write(b"line %04d\n" % number)
        bound_log(log, limit=20_000, kept=100)
        assert log.stat().st_size == 10_000
        bound_log(log, limit=9_999, kept=100)
        writer.write(b"after\n")
    lines = log.read_text().splitlines()
    assert lines == [f"line {number:04d}" for number in range(990, 1000)] + ["after"]


def test_an_unknown_program_raises_at_its_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Child(["/nonexistent/program"], tmp_path / "log").start()


def test_an_ended_process_gets_no_signal_and_no_wait(tmp_path: Path) -> None:
    child = Child(["true"], tmp_path / "log")
    ended = child.start()
    assert child.wait(60) == 0
    assert not ended.send(signal.SIGTERM)
    assert ended.wait_gone(0)


def test_a_process_that_ends_between_the_check_and_the_signal_counts_as_ended(
    sleeper: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(signal, "pidfd_send_signal", ended)
    assert not sleeper.identity.send(signal.SIGTERM)


def test_a_process_given_by_its_id_that_ignores_sigterm_is_killed_after_the_deadline(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    child = Child(["sh", "-c", f"trap '' TERM; touch {ready}; while :; do sleep 0.05; done"], tmp_path / "log")
    identity = child.start()
    try:
        wait_until(ready.exists)
        assert not identity.wait_gone(0)
        terminate(identity, 0.1)
        assert child.wait(60) == -signal.SIGKILL
    finally:
        child.kill()


def test_a_program_that_never_started_has_no_pid(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="expected a started program, sleep never was"):
        Child(SLEEP, tmp_path / "log").pid  # noqa: B018


def test_a_group_of_another_user_does_not_hide_the_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object) -> None:
        raise PermissionError

    child = Child(["sh", "-c", "exit 3"], tmp_path / "log")
    child.start()
    monkeypatch.setattr(os, "killpg", deny)
    assert child.wait(60) == 3


@pytest.mark.parametrize(("number", "raised"), [(errno.ENOSPC, False), (errno.EIO, True)])
def test_a_full_disk_leaves_a_log_uncut_and_another_error_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raised: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "no")

    log = tmp_path / "log"
    log.write_bytes(b"x" * 100)
    with monkeypatch.context() as broken, pytest.raises(OSError, match="no") if raised else contextlib.nullcontext():
        broken.setattr(Path, "open", fail)
        bound_log(log, 50, 10)
    assert log.stat().st_size == 100


def test_a_missing_log_has_no_last_lines_and_is_not_cut(tmp_path: Path) -> None:
    bound_log(tmp_path / "log")
    assert last_lines(tmp_path / "log") == ""
    assert not (tmp_path / "log").exists()
