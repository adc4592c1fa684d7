from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import role_table
from infra.local.process import ProcessId
from infra.local.role_table import RoleTable, read_roles, supervisor
from schemas.errors import StateError
from schemas.runtime.file_lock import lock_file

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stray() -> Iterator[ProcessId]:
    """Yield a process outside our supervision, which ends only by its process id."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        identity = ProcessId.of(process.pid)
        assert identity is not None
        yield identity
        process.kill()


def test_roles_json_has_the_documented_shape_and_follows_restarts(state_dir: Path, stray: ProcessId) -> None:
    with RoleTable(state_dir) as table:
        table.record("kafka", stray, listen="127.0.0.1:9092")
        table.record("bridge", ProcessId(os.getpid(), 1), metrics="127.0.0.1:9100")
        assert read_roles(state_dir) == {
            "kafka": {"pid": stray.pid, "listen": "127.0.0.1:9092", "metrics": None, "restarts": 0},
            "bridge": {"pid": os.getpid(), "listen": None, "metrics": "127.0.0.1:9100", "restarts": 0},
        }
        table.record("bridge", stray, metrics="127.0.0.1:9100")
        assert read_roles(state_dir)["bridge"]["pid"] == stray.pid
        table.remove("kafka")
        assert set(read_roles(state_dir)) == {"bridge"} == set(table.roles())
    assert read_roles(state_dir) == {}


def test_a_state_folder_has_one_supervisor_at_a_time(state_dir: Path) -> None:
    with RoleTable(state_dir), pytest.raises(StateError, match=f"held by pid {os.getpid()}"):
        RoleTable(state_dir)
    RoleTable(state_dir).close()


def test_the_supervisor_is_the_up_that_has_the_folder_and_no_other_holder(state_dir: Path) -> None:
    assert supervisor(state_dir) is None
    with RoleTable(state_dir):
        assert supervisor(state_dir) == ProcessId.of(os.getpid())
    assert supervisor(state_dir) is None
    with RoleTable(state_dir, holder="restore"):
        assert supervisor(state_dir) is None
        with pytest.raises(StateError, match=f"held by pid {os.getpid()}"):
            RoleTable(state_dir)


def test_the_owner_of_a_reused_pid_is_no_supervisor(state_dir: Path, stray: ProcessId) -> None:
    _run_killed_supervisor(state_dir, stray)
    lock = state_dir / "lock"
    lock.write_text(json.dumps(json.loads(lock.read_text()) | {"pid": stray.pid, "started": stray.started - 1}))
    held = lock_file(lock)  # as by a start before it records itself
    assert supervisor(state_dir) is None
    os.close(held)


def test_the_search_for_the_supervisor_takes_no_lock(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise an `up` that starts at this moment would fail, and another search would find this one."""
    with RoleTable(state_dir), monkeypatch.context() as patched:
        patched.delattr("fcntl.flock")
        assert supervisor(state_dir) == ProcessId.of(os.getpid())


def test_a_system_of_an_earlier_release_which_records_only_its_pid_is_found_while_it_runs(
    state_dir: Path, stray: ProcessId
) -> None:
    lock = state_dir / "lock"
    lock.write_text(f"{stray.pid}\n")
    assert supervisor(state_dir) is None
    held = lock_file(lock)
    assert supervisor(state_dir) == stray
    with pytest.raises(StateError, match=f"held by pid {stray.pid}"):
        RoleTable(state_dir)
    os.close(held)
    RoleTable(state_dir).close()


def test_a_file_in_place_of_the_state_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="expected a writable folder"):
        RoleTable(tmp_path / "file")
    with pytest.raises(StateError, match="expected a state folder of `pointillist up`, got none"):
        read_roles(tmp_path / "other")


def _run_killed_supervisor(folder: Path, process: ProcessId) -> None:
    """Run a supervisor that lists `process` as its bridge and is killed by SIGKILL."""
    program = f"""
import os
from pathlib import Path
from infra.local.process import ProcessId
from infra.local.role_table import RoleTable
table = RoleTable(Path({str(folder)!r}))
table.record("bridge", ProcessId({process.pid}, {process.started}))
os.kill(os.getpid(), 9)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as run:
        assert run.wait() == -signal.SIGKILL


def test_the_next_supervisor_ends_the_processes_of_a_killed_one(state_dir: Path, stray: ProcessId) -> None:
    _run_killed_supervisor(state_dir, stray)
    with RoleTable(state_dir) as table:
        assert table.kill_leftovers() == ["bridge"]
        assert not stray.alive()
        assert table.roles() == {}
        assert read_roles(state_dir) == {}
        assert table.kill_leftovers() == []


def test_another_process_with_a_reused_pid_is_not_killed(state_dir: Path, stray: ProcessId) -> None:
    _run_killed_supervisor(state_dir, ProcessId(stray.pid, stray.started - 100))
    with RoleTable(state_dir) as table:
        assert table.kill_leftovers() == []
    assert stray.alive()


def test_a_record_from_before_a_reboot_kills_no_process(state_dir: Path, stray: ProcessId) -> None:
    _run_killed_supervisor(state_dir, stray)
    path = state_dir / "processes.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot": "another"}))
    with RoleTable(state_dir) as table:
        assert table.kill_leftovers() == []
    assert stray.alive()


@pytest.mark.parametrize("content", ["", "[1]", '{"boot": 3}', '{"processes": {"bridge": {"pid": "1"}}}'])
def test_a_damaged_record_kills_no_process_and_prevents_no_start(state_dir: Path, content: str) -> None:
    (state_dir / "processes.json").write_text(content)
    with RoleTable(state_dir) as table:
        assert table.kill_leftovers() == []


@pytest.mark.parametrize(("number", "raised"), [(errno.ENOSPC, False), (errno.EIO, True)])
def test_a_table_is_written_after_a_full_disk_and_another_error_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raised: bool
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "no")

    with RoleTable(tmp_path) as table:
        with monkeypatch.context() as broken:
            broken.setattr(role_table, "write_json", fail)
            with pytest.raises(OSError, match="no") if raised else contextlib.nullcontext():
                table.record("bridge", ProcessId(1, 2), listen="127.0.0.1:9")
        assert not (tmp_path / "roles.json").exists()
        table.catch_up()
        assert (tmp_path / "roles.json").exists() is not raised
