"""A file lock: it excludes other holders until it is closed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from schemas.runtime.file_lock import lock_file


def test_a_second_lock_is_rejected_until_the_first_is_closed(tmp_path: Path) -> None:
    first = lock_file(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        lock_file(tmp_path / "lock")
    os.close(first)
    os.close(lock_file(tmp_path / "lock"))
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_shared_locks_exclude_only_the_others(tmp_path: Path) -> None:
    shared = [lock_file(tmp_path / "lock", shared=True) for _ in range(2)]
    with pytest.raises(BlockingIOError):
        lock_file(tmp_path / "lock")
    for each in shared:
        os.close(each)
    held = lock_file(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        lock_file(tmp_path / "lock", shared=True)
    os.close(held)


def test_a_waiting_lock_gets_the_file_after_the_first(tmp_path: Path) -> None:
    first = lock_file(tmp_path / "lock")
    order = []

    def wait() -> None:
        second = lock_file(tmp_path / "lock", wait=True)
        order.append("second")
        os.close(second)

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(0.2)
    order.append("first")
    os.close(first)
    waiting.join(60)
    assert order == ["first", "second"]


def test_a_rejected_lock_leaves_no_open_descriptor(tmp_path: Path) -> None:
    first = lock_file(tmp_path / "lock")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(BlockingIOError):
            lock_file(tmp_path / "lock")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    os.close(first)
