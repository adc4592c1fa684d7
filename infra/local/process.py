"""Child processes that are supervised by pid and start time, and that never outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from schemas.runtime.disk import is_full
from schemas.runtime.module import MODULE

COMMAND = (*MODULE, "infra.cli")
"""The arguments of `pointillist` by this very interpreter, whatever the path contains."""
LOG_LIMIT_BYTES = 4 * 1024 * 1024
LOG_KEPT_BYTES = 256 * 1024
POLL_S = 0.01
_STOPS_WITHIN_S = 5.0

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)

# The kernel sends the parent-death signal when the *thread* that forked ends, so one thread, which lives as
# long as this process, does all the forking, and `Child.start` may be called from any short-lived one.
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


@dataclass(frozen=True)
class ProcessId:
    """A pid with its kernel start time, in clock ticks since boot: together they identify one process for good.

    It is kept in a file. The start time of psutil is unsuitable there: it moves when the wall clock is set.
    """

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """Return the process that has `pid` now; None when there is none, or only its unreaped remains."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The command, in parentheses, may hold spaces and parentheses itself; the fields after it cannot.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))

    def alive(self) -> bool:
        """Return whether this very process still runs."""
        return ProcessId.of(self.pid) == self

    def send(self, signum: signal.Signals) -> bool:
        """Signal this very process; False when it is gone, even if another process has the pid now."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            # Checked after the handle is open: from here the signal can reach no later owner of the pid.
            if not self.alive():
                return False
            signal.pidfd_send_signal(handle, signum)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True

    def wait_gone(self, deadline_s: float) -> bool:
        """Wait at most `deadline_s` seconds for the process to end; return whether it has."""
        end = time.monotonic() + deadline_s
        while self.alive():
            if time.monotonic() >= end:
                return False
            time.sleep(POLL_S)
        return True


def terminate(process: ProcessId, deadline_s: float) -> None:
    """Send SIGTERM, then SIGKILL after `deadline_s` seconds. A stopped process is continued to receive the signal."""
    if not (process.send(signal.SIGTERM) and process.send(signal.SIGCONT)):
        return
    if not process.wait_gone(deadline_s):
        process.send(signal.SIGKILL)
        process.wait_gone(deadline_s)


def spawn(
    command: Sequence[str],
    output: IO[bytes] | int,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    start_new_session: bool = False,
    stdin: int = subprocess.DEVNULL,
    stderr: int = subprocess.STDOUT,
) -> subprocess.Popen[bytes]:
    """Start a program that ends with this process, even after `kill -9`.

    Standard output goes to `output`, and standard error too unless `stderr` is another place. Raises
    FileNotFoundError if there is no such program.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        # The parent may have died between the fork and the call: then no signal will come.
        if os.getppid() != parent:
            os._exit(1)

    return _SPAWNER.submit(
        subprocess.Popen[bytes],
        command,
        stdin=stdin,
        stdout=output,
        stderr=stderr,
        cwd=cwd,
        env=env,
        start_new_session=start_new_session,
        preexec_fn=die_with_parent,  # only async-signal-safe calls in there
    ).result()


class Child:
    """One supervised program. Its output goes to `log`; `kill -9` of this process ends it too.

    The program leads a session and process group of its own. A Ctrl-C at the terminal therefore reaches only the
    supervisor, and the program's own children are killed with it.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.command = list(command)
        self.log = log
        self._cwd = cwd
        self._env = dict(env) if env is not None else None
        self._popen: subprocess.Popen[bytes] | None = None
        self._identity: ProcessId | None = None
        self._reaping = threading.Lock()  # a supervisor polls from one thread while another stops

    def start(self) -> ProcessId:
        """Start the program; return its pid and start time.

        Raises RuntimeError when it runs already, FileNotFoundError when there is no such program.
        """
        if self.poll() is None and self._popen is not None:
            raise RuntimeError(f"expected a stopped program, {self.command[0]} runs as pid {self.pid}")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        bound_log(self.log)
        # A poll of another thread between the two assignments would ask for the pid of the last start.
        with self._reaping:
            self._popen = self._spawn()
            # A child that has ended stays a zombie until it is reaped, so its pid is still its own here.
            self._identity = ProcessId.of(self._popen.pid) or ProcessId(self._popen.pid, -1)
        return self._identity

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as out:
            return spawn(self.command, out, cwd=self._cwd, env=self._env, start_new_session=True)

    @property
    def identity(self) -> ProcessId:
        """Pid and start time of the last start."""
        if self._identity is None:
            raise RuntimeError(f"expected a started program, {self.command[0]} never was")
        return self._identity

    @property
    def pid(self) -> int:
        """The pid of the last start."""
        return self.identity.pid

    def poll(self) -> int | None:
        """Return the exit status (−N when signal N ended it), None while it runs or before its first start.

        Also cuts a log above its bound: a supervisor that polls bounds it for the whole run.
        """
        if self._popen is None:
            return None
        with self._reaping:
            if self._popen.returncode is None:
                if not self._ended():
                    bound_log(self.log)
                    return None
                # The unreaped leader still owns the pid, and so the group's id: this reaches no other process.
                self._kill_group()
                self._popen.wait()
            return self._popen.returncode

    def _ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return

    def wait(self, deadline_s: float) -> int | None:
        """Wait for the exit status; None when it still runs after `deadline_s` seconds."""
        end = time.monotonic() + deadline_s
        while (status := self.poll()) is None and self._popen is not None and time.monotonic() < end:
            time.sleep(POLL_S)
        return status

    def stop(self, deadline_s: float = 10.0) -> int | None:
        """Send SIGTERM, then SIGKILL to the whole group after `deadline_s` seconds; return the exit status."""
        if self._popen is None or self.poll() is not None:
            return self.poll()
        self.identity.send(signal.SIGTERM)
        self.identity.send(signal.SIGCONT)  # a paused program reacts only once it runs
        status = self.wait(deadline_s)
        return self.kill() if status is None else status

    def kill(self) -> int | None:
        """Send SIGKILL to the program and all of its group; return the exit status."""
        if self._popen is None or self.poll() is not None:
            return self.poll()
        with self._reaping:
            if self._popen.returncode is None:
                self._kill_group()
                self._popen.wait()
            return self._popen.returncode

    def pause(self) -> None:
        """Send SIGSTOP and wait until all threads have stopped: the program hangs with its sockets open, as on a stuck
        machine.
        """
        self.identity.send(signal.SIGSTOP)
        end = time.monotonic() + _STOPS_WITHIN_S
        while self.poll() is None and not self._stopped() and time.monotonic() < end:
            time.sleep(0.001)

    def _stopped(self) -> bool:
        try:
            return os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True  # it has ended meanwhile

    def resume(self) -> None:
        """Send SIGCONT after `pause`."""
        self.identity.send(signal.SIGCONT)


def bound_log(log: Path, limit: int = LOG_LIMIT_BYTES, kept: int = LOG_KEPT_BYTES) -> None:
    """Cut `log` down to its last `kept` bytes once it is larger than `limit`.

    The writer appends (O_APPEND) at the new end. Lines written during the cut may be lost, and all lines if the disk
    fills in that moment.
    """
    try:
        if log.stat().st_size <= limit:
            return
        with log.open("r+b") as file:
            file.seek(-kept, os.SEEK_END)
            tail = file.read(kept)
            file.truncate(0)
            file.seek(0)
            file.write(tail)
    except FileNotFoundError:
        return
    except OSError as error:
        if not is_full(error):
            raise


def last_lines(log: Path, count: int = 3) -> str:
    """Return the last non-blank lines of `log` in one line of at most 500 characters; empty when there are none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-count:])[-500:]


def last_line(log: Path) -> str:
    """Return the last line of `log` that is not blank; empty when there is none."""
    return last_lines(log, 1)
