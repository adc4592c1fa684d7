"""A `pointillist up` in the background: started, killed in parts, interrupted, measured, audited."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil

from benchmarks.harness.checkout import packages_of
from infra.local.process import COMMAND, Child, ProcessId, last_lines, spawn
from infra.pki.roles import role_tls
from infra.state_folder import Layout
from infra.up.processes import is_healthy
from schemas.transport.access import KafkaAccess, KafkaAddress

__all__ = ["COMMAND", "Result", "RunningSystem", "audit", "await_healthy", "on_cores", "summary", "undisturbed"]

Result = dict[str, Any]

SHOWN = (
    "frames_published", "frames_recorded", "frames_dead_lettered", "frames_shed", "frames_pending", "frames_lost",
    "duplicates_removed", "frames_foreign", "accuracy", "alerts", "strip_checked", "strip_shed", "startup_s",
    "wire_overhead_bytes_per_frame", "frames_per_second", "latency_s", "bytes_raw", "bytes_sent", "bytes_resent",
    "restarts",
)  # fmt: skip
_SAMPLED_S: Final = 0.25


def summary(report: Result, state: Path) -> Result:
    """Return the part of a report that a drill shows, with the audit's own counts."""
    status, found = audit(state)
    shown = {name: report[name] for name in SHOWN}
    shown["sent_over_raw"] = report["bytes_sent"] / report["bytes_raw"] if report["bytes_raw"] else None
    shown["audit"] = {
        "status": status,
        "frames_lost": found["frames_lost"],
        "frames_recorded": found["frames_recorded"],
    }
    return shown


def undisturbed(report: Result, output: str) -> Result:
    """Return the report of a measured run, whose `up` has printed `output`.

    Raises RuntimeError if there is none, or if a role was restarted: the CPU time of its first process is unknown.
    """
    if not report:
        raise RuntimeError(f"`up`: expected a report, got none: {output[-2000:]}")
    if restarts := report.get("restarts"):
        raise RuntimeError(f"`up`: expected no restart in a measurement, got {restarts}: {output[-2000:]}")
    return report


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Keep this process and those that it starts on `count` cores. Raises SystemExit if it may use fewer."""
    before = os.sched_getaffinity(0)
    if len(before) < count:
        raise SystemExit(f"cores: expected {count} that this process may use, got {len(before)}")
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class RunningSystem:
    """One `pointillist up` on the state folder `state`, until this process ends. Its output goes to `state`.log."""

    def __init__(self, state: Path, *options: object, checkout: Path | None = None) -> None:
        """`checkout` is another checkout of the project, whose packages this Python can run, instead of this one."""
        self.state = state
        self.report_file = state / "report.json"
        self.log = state.with_name(f"{state.name}.log")
        state.mkdir(parents=True, exist_ok=True)
        self.report_file.unlink(missing_ok=True)
        command = [*COMMAND, "up", "--state", str(state), "--report", str(self.report_file), *map(str, options)]
        with self.log.open("ab") as output:
            environment = None if checkout is None else packages_of(checkout)
            self.process = spawn(command, output, cwd=checkout, env=environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop it at once, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def kafka(self) -> KafkaAddress:
        """Return the address of its Kafka nodes, with the rights of an administrator."""
        nodes = [str(each["listen"]) for name, each in sorted(self.roles().items()) if name.startswith("kafka")]
        layout, bootstrap = Layout(self.state), ",".join(nodes)
        return KafkaAccess(bootstrap, role_tls(layout.pki, "admin")) if layout.secure else bootstrap

    def roles(self) -> dict[str, Any]:
        """Return the content of `roles.json`; empty before there is one."""
        try:
            found: dict[str, Any] = json.loads((self.state / "roles.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    def fleets(self) -> dict[str, Any]:
        """Return the entries of the processes that run the cameras."""
        return {name: entry for name, entry in self.roles().items() if name.partition("-")[0] == "fleet"}

    def await_role(self, role: str, but_not: int | None = None, deadline_s: float = 240.0) -> int:
        """Return the pid of `role` once it runs, as another process than `but_not`."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            pid = self.roles().get(role, {}).get("pid")
            if pid is not None and pid != but_not and ProcessId.of(pid):
                return int(pid)
            if self.process.poll() is not None:
                raise RuntimeError(f"expected {role} to run, `up` has ended: {self.output()}")
            time.sleep(0.05)
        raise TimeoutError(f"expected {role} to run within {deadline_s:g} s: {self.output()}")

    def kill(self, role: str) -> float:
        """Kill a role by SIGKILL; return the seconds until `up` has restarted it."""
        pid = self.await_role(role)
        begun = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        self.await_role(role, but_not=pid)
        return time.monotonic() - begun

    def send(self, role: str, signum: signal.Signals) -> None:
        """Signal a role, such as SIGSTOP for a hang."""
        os.kill(self.await_role(role), signum)

    def interrupt(self) -> None:
        """Press Ctrl-C: the cameras end, everything drains, the report is written."""
        self.process.send_signal(signal.SIGINT)

    def output(self) -> str:
        """Return the output of `up`."""
        return self.log.read_text()

    def wait(self, deadline_s: float) -> tuple[int, dict[str, Any]]:
        """Return the exit status and the report, once `up` has ended by itself."""
        status = self.process.wait(timeout=deadline_s)
        report: dict[str, Any] = json.loads(self.report_file.read_text()) if self.report_file.exists() else {}
        return status, report

    def finish(self, deadline_s: float = 240.0) -> dict[str, Any]:
        """Return the report of a run that must end with status 0."""
        status, report = self.wait(deadline_s)
        if status != 0:
            raise RuntimeError(f"expected status 0, got {status}: {self.output()[-4000:]}")
        return report

    def resident_bytes(self, role: str) -> int:
        """Return the resident memory of a role."""
        return int(psutil.Process(self.await_role(role)).memory_info().rss)

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU seconds of each role so far with the processes that it has started, and of the supervisor."""
        used = {}
        for role, pid in [*((role, entry["pid"]) for role, entry in self.roles().items()), ("up", self.process.pid)]:
            try:
                process = psutil.Process(pid)
                own = [process] if role == "up" else [process, *process.children(recursive=True)]
                used[role] = sum(sum(each.cpu_times()[:2]) for each in own)
            except psutil.NoSuchProcess:
                continue
        return used

    def cpu_until_end(self) -> dict[str, float]:
        """Return `cpu_seconds` at the end, which this call waits for. A restarted role counts from its restart."""
        used: dict[str, float] = {}
        while self.process.poll() is None:
            used |= self.cpu_seconds()
            time.sleep(_SAMPLED_S)
        return used


def audit(state: Path) -> tuple[int, dict[str, Any]]:
    """Return exit status and JSON of `pointillist audit`."""
    done = subprocess.run(
        [*COMMAND, "audit", "--state", str(state), "--json"], check=False, capture_output=True, text=True, timeout=300
    )
    if not done.stdout:
        raise RuntimeError(f"pointillist audit: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


def await_healthy(address: str, child: Child | None = None, deadline_s: float = 120.0) -> None:
    """Wait until the role with its metrics at host:port is healthy; `child` must not end meanwhile."""
    end = time.monotonic() + deadline_s
    while not is_healthy(address):
        if child is not None and child.poll() is not None:
            raise RuntimeError(f"expected {' '.join(child.command)} to run, it has ended: {last_lines(child.log)}")
        if time.monotonic() > end:
            raise TimeoutError(f"expected a healthy role at {address} within {deadline_s:g} s")
        time.sleep(0.2)
