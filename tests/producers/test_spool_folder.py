"""The lock of a spool's folder: one process at a time, and one open file for thousands of folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from producers.spool.folder import FolderLock
from schemas.errors import StateError

_TRY = (
    "import sys; from pathlib import Path; from producers.spool.folder import FolderLock; FolderLock(Path(sys.argv[1]))"
)


def another_process_locks(folder: Path) -> bool:
    done = subprocess.run([sys.executable, "-c", _TRY, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "expected one that is not in use" in done.stderr
    return done.returncode == 0


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_folder_is_locked_once_and_its_neighbours_are_free(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "site" / "one")
    with pytest.raises(StateError, match="in use"):
        FolderLock(tmp_path / "site" / "one")
    assert not another_process_locks(tmp_path / "site" / "one")
    assert another_process_locks(tmp_path / "site" / "two")
    lock.release()
    assert another_process_locks(tmp_path / "site" / "one")
    FolderLock(tmp_path / "site" / "one").release()


def test_many_folders_need_one_open_file(tmp_path: Path) -> None:
    before = open_files()
    locks = [FolderLock(tmp_path / "site" / f"cam-{number}") for number in range(50)]
    assert open_files() == before + 1
    locks[0].release()
    assert not another_process_locks(tmp_path / "site" / "cam-49")


def test_a_site_folder_that_was_deleted_and_recreated_is_locked_again(tmp_path: Path) -> None:
    FolderLock(tmp_path / "site" / "one").release()
    shutil.rmtree(tmp_path / "site")
    FolderLock(tmp_path / "site" / "one")
    assert not another_process_locks(tmp_path / "site" / "one")


def test_a_deleted_lock_file_is_recreated_and_locked(tmp_path: Path) -> None:
    FolderLock(tmp_path / "site" / "one").release()
    (tmp_path / "site" / ".locks").unlink()
    FolderLock(tmp_path / "site" / "one")
    assert not another_process_locks(tmp_path / "site" / "one")


def test_a_folder_whose_inode_number_has_64_bits_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lock a folder with an inode number as mergerfs and CIFS produce."""
    stat = Path.stat

    def large(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        found = stat(path, follow_symlinks=follow_symlinks)
        return os.stat_result((found[0], 2**64 - 1, *found[2:])) if path.name == "one" else found

    monkeypatch.setattr(Path, "stat", large)
    lock = FolderLock(tmp_path / "site" / "one")
    with pytest.raises(StateError, match="in use"):
        FolderLock(tmp_path / "site" / "one")
    lock.release()
    FolderLock(tmp_path / "site" / "one").release()
