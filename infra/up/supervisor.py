"""The roles of `up`: each is supervised, recorded in `roles.json`, and restarted when it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from math import inf

from infra.local.disk_space import DiskSpace
from infra.local.process import last_line
from infra.local.role_table import RoleTable
from infra.local.service import Service
from infra.up.processes import Role, RoleProcess
from schemas.errors import BrokerError, ConfigError, PointillistError, RestartRequired
from schemas.runtime.disk import is_full
from schemas.runtime.supervisor import RestartPolicy, Step, Supervisor

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
STEADY_S = 10.0
"""A role that ran this long is restarted at once."""
MOST_FAILURES = 8
"""A role with more ends in a row than this and no steady run cannot work."""
_RETURN_POLL_S = 0.1
USER_ERROR = 2
"""Exit status of a role of ours that only a user can correct. Go's programs end with it when they crash."""


class RoleSupervisor:
    """Starts roles, writes `roles.json`, and restarts roles that end. One thread calls `watch` repeatedly.

    While the disk of the state folder is full, the end of a role does not count as its own failure.
    """

    def __init__(self, table: RoleTable, disk_space: DiskSpace, print_line: Callable[[str], None]) -> None:
        """`disk_space` watches the disk of the state folder. `print_line` prints a line for the user."""
        self._table = table
        self._disk_space = disk_space
        self._print_line = print_line
        self._full = False
        self._keeps_later = False
        self._roles: dict[str, Role] = {}
        self._supervisors: dict[str, Supervisor] = {}
        self._starting: dict[str, Future[None]] = {}
        self._failures: dict[str, str] = {}
        """Why the last start of a role failed."""
        self._printed: dict[str, str] = {}
        """The last printed reason of each role whose log names one."""
        self._ended: dict[str, float] = {}
        """The monotonic time at which a role that is down was found ended."""
        self._restarting: list[threading.Thread] = []
        """Threads that start a role again and wait for its return."""
        self._writing = threading.Lock()
        self.away_s: dict[str, float] = {}
        """Downtime of each role in seconds, from its ends until it was ready again."""

    @property
    def restarts(self) -> dict[str, int]:
        """The restarts of each role that was restarted."""
        return {name: each.restarts for name, each in self._supervisors.items() if each.restarts}

    def start(self, role: Role) -> None:
        """Start a role and watch it from now on."""
        policy = RestartPolicy(FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S, MOST_FAILURES, role.final)
        self._supervisors[role.name] = Supervisor(role.process, policy)
        self._begin(role)
        self._roles[role.name] = role

    def _begin(self, role: Role) -> None:
        process = self._supervisors[role.name].start()
        with self._writing:
            self._table.record(role.name, process, listen=role.listen(), metrics=role.metrics, url=role.url)

    def keep(self, *, later: bool) -> None:
        """Never give up the present roles from now on: what one of them lacks must not stop the others.

        With `later`, the same holds for roles that are started later, from their first steady run on.
        """
        self._keeps_later = later
        for name in self._roles:
            self._supervisors[name].most_failures = inf

    def forget(self, name: str) -> None:
        """Stop watching a role whose end is intended; it stays in `roles.json` until it is stopped."""
        role = self._roles.pop(name, None)
        starting = self._starting.pop(name, None)
        if starting is not None:
            if role is not None and isinstance(role.process, Service):
                role.process.abandon()
            starting.exception()

    def stop(self, role: Role, deadline_s: float) -> None:
        """Stop a role for good."""
        self.forget(role.name)
        role.process.stop(deadline_s)
        with self._writing:
            self._table.remove(role.name)

    def watch(self) -> None:
        """Restart roles that have ended.

        Raises the role's own message if it ended with a user's error, and BrokerError if it ended too often. Roles that
        are kept raise neither.
        """
        excused = self._check_disk()
        for role in list(self._roles.values()):
            starting = self._starting.get(role.name)
            if starting is not None:
                if not starting.done():
                    continue
                del self._starting[role.name]
                self._check_start(role, starting.exception(), excused)
            status = role.process.poll()
            supervisor = self._supervisors[role.name]
            if status is None and self._keeps_later and supervisor.is_steady:
                supervisor.most_failures = inf
            if status is None or status in role.final:
                continue
            self._ended.setdefault(role.name, time.monotonic())
            if _is_of_user(role, status) and not excused and not self._others_go_on(role):
                raise ended_by_user_error(role)
            step = supervisor.check(excused=excused)
            failed = self._failures.get(role.name)
            if step is Step.GIVEN_UP:
                why = failed or last_log_line(role)
                if role.optional:
                    self._print_line(f"going on without {role.name}: {why}")
                    del self._roles[role.name]
                    with self._writing:
                        self._table.remove(role.name)
                    continue
                raise BrokerError(
                    f"{role.name}: expected the role to keep running, got {supervisor.failures} exits in a row: {why}"
                )
            if step is not Step.RESTARTS:
                continue
            if not failed:
                self._print_end(role, status, supervisor.failures, excused)
            self._starting[role.name] = starting = Future()
            ended = self._ended.pop(role.name)
            thread = threading.Thread(target=self._restart, args=(role, starting, ended), daemon=True)
            self._restarting = [each for each in self._restarting if each.is_alive()]
            try:
                thread.start()
            except RuntimeError:  # the machine has no room for another thread
                self._try_begin(role, starting)
            else:
                self._restarting.append(thread)

    def _print_end(self, role: Role, status: int, failures: int, excused: bool) -> None:
        """Print why a role has ended: each reason in its log once in a row. Without one, print the first end, and once
        more when the role keeps ending.
        """
        first = failures == 0 and not excused
        if status == RestartRequired.exit_code or _is_of_user(role, status):
            why = last_log_line(role)
            if first or why != self._printed.get(role.name):
                self._print_line(f"{role.name} died ({why}), started again")
            self._printed[role.name] = why
            return
        if first or (failures == 1 and not excused):
            self._print_line(f"{role.name} died ({_ending(status)}), started again")
        elif failures == MOST_FAILURES + 1:  # of a role that is not given up
            self._print_line(
                f"{role.name} has ended {failures} times in a row and is tried again within {LONGEST_PAUSE_S:g} s: "
                f"{last_log_line(role)}"
            )

    def _others_go_on(self, role: Role) -> bool:
        return role.optional or self._supervisors[role.name].most_failures == inf

    def _check_start(self, role: Role, failure: BaseException | None, excused: bool) -> None:
        """Note why a restart failed. Raises `failure` if no other attempt can succeed, unless the others go on.

        An OSError may be temporary: the machine may have had no memory for another process.
        """
        earlier = self._failures.pop(role.name, None)
        if failure is None or excused or is_full(failure):
            return
        if not isinstance(failure, (PointillistError if self._others_go_on(role) else BrokerError, OSError)):
            raise failure
        self._failures[role.name] = why = str(failure).removeprefix(f"{role.name}: ")
        if earlier is None:
            self._print_line(f"{role.name} did not start and is tried again: {why}")

    def _try_begin(self, role: Role, starting: Future[None]) -> None:
        try:
            self._begin(role)
        except BaseException as error:
            starting.set_exception(error)
        else:
            starting.set_result(None)

    def _restart(self, role: Role, starting: Future[None], ended: float) -> None:
        """Start a role that has `ended`, and wait until it is ready, has ended again or is no longer watched."""
        self._try_begin(role, starting)
        while role.name in self._roles:
            if starting.exception() or role.process.poll() is not None or role.healthy():
                break
            time.sleep(_RETURN_POLL_S)
        self.away_s[role.name] = self.away_s.get(role.name, 0.0) + time.monotonic() - ended

    def _check_disk(self) -> bool:
        """Report when the disk fills and when it has free space again; return whether it is full, or was until now."""
        full = self._disk_space.is_full()
        if full != self._full:
            self._full = full
            folder = self._table.folder
            self._print_line(
                f"the disk of {folder} is full: cameras spool frames, and full spools shed the oldest. All parts "
                "resume when there is free space."
                if full
                else f"the disk of {folder} has free space again"
            )
        if not full:
            self._table.catch_up()
        return self._disk_space.was_full()

    def await_health(self, roles: list[Role], deadline_s: float, check: Callable[[], None]) -> None:
        """Wait until all `roles` are healthy, restarting them meanwhile; an exception of `check` ends the wait."""
        end = time.monotonic() + deadline_s
        waiting = list(roles)
        while waiting:
            check()
            self.watch()
            waiting = [role for role in waiting if not role.healthy()]
            if waiting and time.monotonic() > end:
                names = ", ".join(role.name for role in waiting)
                log = waiting[0].log
                line = last_line(log) if log else ""
                raise BrokerError(
                    f"{names}: expected readiness within {deadline_s:.0f} s, got none. Last line of the log: {line}"
                )
            time.sleep(0.05)

    def close(self) -> None:
        """Stop restarting roles."""
        self._roles.clear()
        for thread in self._restarting:
            thread.join()


def _is_of_user(role: Role, status: int) -> bool:
    """Return whether a role has ended with a status of which its log has the reason, for a user to correct."""
    return status == USER_ERROR and isinstance(role.process, RoleProcess) and role.log is not None


def ended_by_user_error(role: Role) -> PointillistError:
    """Return the message of a role that ended with status 2."""
    return ConfigError(f"{role.name}: {last_log_line(role)}")


def _ending(status: int) -> str:
    """Describe the exit status of a process: Python's subprocess form, negative for a signal."""
    return f"exit status {status}" if status >= 0 else f"signal {-status}"


def last_log_line(role: Role) -> str:
    """Return the last line of a role's log."""
    line = last_line(role.log) if role.log else ""
    return line.removeprefix("error: ") or "its log is empty"
