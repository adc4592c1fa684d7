"""The roles of a run, as `roles.json` shows them to people and tools, and leftovers of a killed run."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any, Final

from infra.local.process import ProcessId, terminate
from infra.state_folder import Layout
from schemas.errors import StateError
from schemas.runtime.disk import is_full
from schemas.runtime.file_lock import lock_file
from schemas.runtime.json_files import read_json, write_json

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_UP: Final = "up"
_KILL_S: Final = 5.0
"""Seconds for a process of an earlier supervisor to end before it is killed."""


class RoleTable:
    """The processes of one state folder, and the right to be its only supervisor.

    `roles.json` is `{role: {"pid": …, "listen": "host:port" or null, "metrics": "host:port" or null, "restarts": 0}}`.
    It has `"url"` too if browsers need another address than `http://` with `listen`. `processes.json` next to it adds
    each process's start time: only leftovers that really are ours are killed. Both are replaced atomically. On a full
    disk they lag behind until `catch_up`. The folder is locked as long as this object is open or its process lives.

    The lock file is `{"holder": "up", "boot": "…", "pid": …, "started": …}`. Earlier releases wrote the pid alone.
    """

    def __init__(self, folder: Path, holder: str = _UP) -> None:
        """Claim `folder`, made when missing, for the command `holder`.

        Raises StateError when another process has it or `folder` is not a folder.
        """
        self.folder = folder
        self._roles: dict[str, dict[str, Any]] = {}
        self._processes: dict[str, ProcessId] = {}
        self._writing = threading.Lock()  # roles are started from several threads
        self._behind = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock_file(folder / "lock", mode=0o644)
        except BlockingIOError:
            raise StateError(
                f"state: expected a folder that is not in use, got {folder}, held by pid {_holder_pid(folder)}. Stop "
                "that system, or choose another folder."
            ) from None
        except OSError as error:
            raise StateError(
                f"state: expected a writable folder, got {folder}: {error}. Choose another folder."
            ) from error
        try:
            os.ftruncate(self._lock, 0)
            os.write(self._lock, json.dumps(_own_record(holder)).encode())
        except OSError as error:
            if not is_full(error):  # the lock holds all the same, only its owner stays unrecorded
                raise

    def record(
        self,
        role: str,
        process: ProcessId,
        *,
        listen: str | None = None,
        metrics: str | None = None,
        url: str | None = None,
    ) -> None:
        """Record that `role` now runs as `process`; call it after each start and restart. Addresses are `host:port`."""
        with self._writing:
            before = self._roles.get(role)
            restarts = before["restarts"] + 1 if before is not None else 0
            self._roles[role] = {"pid": process.pid, "listen": listen, "metrics": metrics, "restarts": restarts}
            if url is not None:
                self._roles[role]["url"] = url
            self._processes[role] = process
            self._write()

    def remove(self, role: str) -> None:
        """Record that `role` has been stopped for good."""
        with self._writing:
            self._roles.pop(role, None)
            self._processes.pop(role, None)
            self._write()

    def roles(self) -> dict[str, dict[str, Any]]:
        """Return a copy of the present content of `roles.json`."""
        with self._writing:
            return {role: dict(entry) for role, entry in self._roles.items()}

    def catch_up(self) -> None:
        """Write the changes that a full disk has delayed."""
        with self._writing:
            if self._behind:
                self._write()

    def _write(self) -> None:
        # Processes first: a supervisor killed between the two writes leaves a process that the next run can end.
        processes = {role: {"pid": p.pid, "started": p.started} for role, p in self._processes.items()}
        try:
            write_json(self.folder / "processes.json", {"boot": _boot(), "processes": processes})
            write_json(self.folder / "roles.json", self._roles)
        except OSError as error:
            if not is_full(error):
                raise
            self._behind = True
        else:
            self._behind = False

    def kill_leftovers(self) -> list[str]:
        """End the processes that an earlier supervisor of this folder left running; return their roles.

        A process is ended only when its pid and start time are the recorded ones and the machine has not been booted
        since. Another process with the same pid is left alone.
        """
        document = read_json(self.folder / "processes.json")
        recorded = document.get("processes")
        killed = []
        if document.get("boot") == _boot() and isinstance(recorded, dict):
            for role, entry in recorded.items():
                process = _process(entry)
                if process is not None and process.alive():
                    terminate(process, _KILL_S)
                    killed.append(role)
        self._write()
        return killed

    def close(self) -> None:
        """Empty the table and unlock the folder."""
        self._roles.clear()
        self._processes.clear()
        self._write()
        os.ftruncate(self._lock, 0)
        os.close(self._lock)

    def __enter__(self) -> RoleTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_roles(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the roles that `folder`/roles.json names. Raises StateError when there is no such file."""
    path = folder / "roles.json"
    if not path.is_file():
        raise no_state_folder(folder)
    return read_json(path)


def no_state_folder(folder: Path) -> StateError:
    """Return the error for a folder that is not the state folder of a system."""
    return StateError(
        f"--state: expected a state folder of `pointillist up`, got none in {folder.resolve()}. Change to the folder "
        "in which `up` was started, or correct --state."
    )


def not_running(folder: Path) -> StateError:
    """Return the error for a state folder whose system does not run, or has not started all of its roles yet."""
    folder, process = folder.resolve(), supervisor(folder)
    if process is not None:
        return StateError(
            f"{folder}: expected a running system, got one that starts or stops (pid {process.pid}). Try again in a "
            "few seconds."
        )
    option = Layout(folder).state_option
    return StateError(f"{folder}: expected a running system, got none. Start it with `pointillist up {option}`.")


def supervisor(folder: Path) -> ProcessId | None:
    """Return the `up` that has claimed `folder`; None without one.

    It is found by its record in the lock file: an attempt to lock the file could make a starting `up` fail. A pid
    alone, which an earlier release has written, needs the attempt, because it stays there after the end.
    """
    match _lock_record(folder):
        case int(pid):
            return ProcessId.of(pid) if _is_locked(folder) else None
        case {"holder": holder, "boot": boot, **process} if holder == _UP and boot == _boot():
            found = _process(process)
            return found if found is not None and found.alive() else None
        case _:
            return None


def _own_record(holder: str) -> dict[str, object]:
    """Return the content of a lock file of this process."""
    me = ProcessId.of(os.getpid())
    assert me is not None
    return {"holder": holder, "boot": _boot(), "pid": me.pid, "started": me.started}


def _lock_record(folder: Path) -> object:
    """Return the content of the lock file; None when it has none, such as on a full disk, or cannot be read."""
    try:
        return json.loads((folder / "lock").read_text())
    except (OSError, ValueError):
        return None


def _holder_pid(folder: Path) -> object:
    match _lock_record(folder):
        case int(pid) | {"pid": pid}:
            return pid
        case _:
            return "unknown"


def _is_locked(folder: Path) -> bool:
    try:
        os.close(lock_file(folder / "lock", shared=True))
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def running(folder: Path, role: str) -> ProcessId | None:
    """Return the process of a role of the system in `folder`, when it runs now."""
    document = read_json(folder / "processes.json")
    recorded = document.get("processes")
    if document.get("boot") != _boot() or not isinstance(recorded, dict):
        return None
    process = _process(recorded.get(role))
    return process if process is not None and process.alive() else None


def _boot() -> str:
    return _BOOT_ID.read_text().strip()


def _process(entry: object) -> ProcessId | None:
    match entry:
        case {"pid": int(pid), "started": int(started)}:
            return ProcessId(pid, started)
        case _:
            return None
