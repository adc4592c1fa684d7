"""The permissions of a state folder, which other users cannot read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.local.private_folder import private_folder
from infra.local.process import Child
from schemas.errors import StateError
from tests.waiting import wait_until


def open_to_others(folder: Path) -> list[str]:
    return [str(path) for path in (folder, *folder.rglob("*")) if path.stat().st_mode & 0o077]


def test_a_state_folder_and_its_new_files_are_private_to_the_owner(tmp_path: Path) -> None:
    state = tmp_path / "parent" / "state"
    with private_folder(state):
        (state / "pointillist.sqlite").touch()
        (state / "quarantine").mkdir()
        child = Child(["sh", "-c", "touch made; mkdir folder; touch folder/deep"], state / "log", cwd=state)
        child.start()
        wait_until(lambda: child.poll() is not None, "the child's end")
    assert (state / "folder" / "deep").is_file()
    assert open_to_others(state) == []
    (tmp_path / "elsewhere").touch()
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_the_permissions_of_an_earlier_release_are_restricted(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "quarantine").mkdir(parents=True)
    (state / "pointillist.sqlite").touch()
    outside = tmp_path / "outside"
    outside.touch()
    (state / "link").symlink_to(outside)
    for path in (state, state / "quarantine", state / "pointillist.sqlite", outside):
        path.chmod(0o755)
    with private_folder(state):
        assert [path for path in open_to_others(state) if not path.endswith("link")] == []
    assert outside.stat().st_mode & 0o777 == 0o755


def test_a_closed_entry_of_another_owner_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deny the change of `lost+found`, which belongs to root on a disk that is mounted as the state folder."""
    (tmp_path / "lost+found").mkdir(mode=0o700)
    (tmp_path / "pointillist.sqlite").touch(0o644)
    change = Path.chmod

    def change_own(path: Path, mode: int) -> None:
        if path.name == "lost+found":
            raise PermissionError(1, "Operation not permitted", str(path))
        change(path, mode)

    monkeypatch.setattr(Path, "chmod", change_own)
    with private_folder(tmp_path):
        assert open_to_others(tmp_path) == []


@pytest.mark.parametrize("name", ["README.md", "src", "models"])
def test_a_folder_of_something_else_is_refused_and_keeps_its_rights(tmp_path: Path, name: str) -> None:
    shared = tmp_path / "shared"
    (shared / name).mkdir(parents=True)
    (shared / ".git").mkdir()
    before = open_to_others(shared)
    expected = rf"^--state: expected an empty folder or the state folder of a system, got {shared} with {name}\. "
    with pytest.raises(StateError, match=expected), private_folder(shared):
        pass
    assert len(before) == 3
    assert open_to_others(shared) == before


@pytest.mark.parametrize(
    "names",
    [
        (), ("lost+found",), (".cache", ".bash_history"), ("enrolments",), ("users", ".users.lock"),
        ("kafka", "ports.json", "spool"), ("kafka-1", "mosquitto"), ("kafka-2", "kafka-3"),
        ("fleet.secret", "notes.txt"),
    ],
)  # fmt: skip
def test_a_folder_that_is_prepared_for_a_system_is_accepted(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).mkdir()
    with private_folder(tmp_path):
        assert open_to_others(tmp_path) == []


def test_a_mounted_disk_in_an_empty_folder_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "models")
    with private_folder(tmp_path):
        assert open_to_others(tmp_path) == []


def test_a_file_that_vanishes_meanwhile_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, change = tmp_path / "state", Path.chmod
    state.mkdir()
    for name in ("users", "tokens"):
        (state / name).touch(0o644)

    def change_and_remove_the_other(path: Path, mode: int) -> None:
        change(path, mode)
        for other in () if path == state else set(state.iterdir()) - {path}:
            other.unlink()

    monkeypatch.setattr(Path, "chmod", change_and_remove_the_other)
    with private_folder(state):
        assert len(list(state.iterdir())) == 1
        assert open_to_others(state) == []


def test_a_folder_that_cannot_be_created_is_one_error_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StateError, match="state: expected a writable folder"),
        private_folder(tmp_path / "file" / "state"),
    ):
        pass


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current
