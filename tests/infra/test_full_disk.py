"""The supervision of roles on a full disk: it continues, and writes its files later."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.local.disk_space import DiskSpace
from infra.local.ports import Ports
from infra.local.process import ProcessId, bound_log
from infra.local.role_table import RoleTable, read_roles
from infra.up.processes import Role
from infra.up.supervisor import MOST_FAILURES, RoleSupervisor
from schemas.errors import BrokerError, ConfigError, RestartRequired
from schemas.runtime.atomic_file import write_text
from tests.conftest import fill
from tests.infra.exiting_role import ExitingRole

ERROR = "error: no room for it"


@pytest.fixture
def lines() -> list[str]:
    """Return the lines that the supervisor prints."""
    return []


@pytest.fixture
def table(small_disk: Path) -> Iterator[RoleTable]:
    """Yield the table of a state folder on a small disk."""
    with RoleTable(small_disk) as table:
        yield table


def watch(supervisor: RoleSupervisor, until: Callable[[], bool], deadline_s: float = 60.0) -> None:
    end = time.monotonic() + deadline_s
    while not until():
        assert time.monotonic() < end
        supervisor.watch()
        time.sleep(0.01)


def test_the_table_of_roles_is_kept_in_memory_and_written_later(table: RoleTable, small_disk: Path) -> None:
    me = ProcessId(os.getpid(), 1)
    table.record("first", me)
    ballast = fill(small_disk)
    table.record("second", me)
    table.remove("first")
    assert set(read_roles(small_disk)) == {"first"}
    assert set(table.roles()) == {"second"}
    ballast.unlink()
    table.catch_up()
    assert set(read_roles(small_disk)) == {"second"}


def test_a_file_that_cannot_be_written_stays_unchanged_and_leaves_no_temporary_file(small_disk: Path) -> None:
    file = small_disk / "settings"
    write_text(file, "whole")
    ballast = fill(small_disk)
    with pytest.raises(OSError, match="No space"):
        write_text(file, "another" * 1000)
    assert file.read_text() == "whole"
    assert {path.name for path in small_disk.iterdir()} == {file.name, ballast.name}


def test_a_port_is_allocated_even_if_it_cannot_be_stored(small_disk: Path) -> None:
    fill(small_disk)
    ports = Ports(small_disk)
    assert ports.allocate("bridge") == ports.allocate("bridge")


def test_a_log_is_cut_to_its_tail_on_a_full_disk(small_disk: Path) -> None:
    log = small_disk / "role.log"
    log.write_bytes(b"x" * 1000)
    fill(small_disk)
    bound_log(log, limit=999, kept=900)
    assert log.read_bytes() == b"x" * 900


@pytest.mark.parametrize("status", [1, 2])
def test_a_role_is_restarted_whatever_its_exit_status_while_the_disk_is_full(
    table: RoleTable, small_disk: Path, tmp_path: Path, lines: list[str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.up.supervisor.LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr("infra.up.supervisor.FIRST_PAUSE_S", 0.01)
    supervisor = RoleSupervisor(table, DiskSpace(small_disk, least_bytes=2**16, grace_s=0), lines.append)
    role = ExitingRole(status, tmp_path / "role.log", ERROR)
    ballast = fill(small_disk)
    supervisor.start(Role("role", role, log=role.log))
    watch(supervisor, lambda: role.starts > MOST_FAILURES + 2)
    assert len(lines) == 1
    assert "is full" in lines[0]
    ballast.unlink()
    with pytest.raises((BrokerError, ConfigError), match="no room for it"):
        watch(supervisor, lambda: False)
    assert "has free space again" in lines[1]
    supervisor.close()


def test_a_role_that_requests_a_restart_is_restarted_with_its_reason(
    table: RoleTable, small_disk: Path, tmp_path: Path, lines: list[str]
) -> None:
    supervisor = RoleSupervisor(table, DiskSpace(small_disk, least_bytes=1), lines.append)
    role = ExitingRole(RestartRequired.exit_code, tmp_path / "role.log", ERROR)
    supervisor.start(Role("recorder", role, log=role.log))
    watch(supervisor, lambda: role.starts > 1)
    supervisor.close()
    assert lines[0] == "recorder died (no room for it), started again"
    assert role.child.wait(60) == RestartRequired.exit_code


LOGS = """
import structlog
from infra.process.role import configure_logs

configure_logs()
for number in range(100):
    structlog.get_logger().warning("nothing_fits", number=number)
print("continued")
"""


def test_a_role_continues_if_its_log_cannot_be_written(small_disk: Path) -> None:
    with (small_disk / "role.log").open("ab") as log:
        fill(small_disk)
        done = subprocess.run(
            [sys.executable, "-c", LOGS], stdout=subprocess.PIPE, stderr=log, text=True, check=False, timeout=60
        )
    assert (done.returncode, done.stdout) == (0, "continued\n")
