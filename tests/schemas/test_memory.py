"""The garbage collector's and the C library's settings for memory."""

from __future__ import annotations

import ctypes
import gc
import platform
import subprocess
import sys
import weakref
from types import SimpleNamespace

import pytest

from schemas.runtime.memory import keep_freed, release_freed

PROGRAM = """
import gc
from schemas.runtime.memory import THRESHOLDS, collect_seldom, keep_freed
before = len(gc.get_objects())
collect_seldom()
assert gc.get_threshold() == THRESHOLDS
assert gc.get_freeze_count() > before // 2
assert len(gc.get_objects()) < before // 10
assert gc.isenabled()
print(keep_freed())
"""


def test_existing_objects_are_frozen_and_collections_are_rare() -> None:
    # In another process, because both settings last until its end.
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(platform.libc_ver()[0] == "glibc")


@pytest.mark.parametrize("refused", [None, -1, -3])
def test_both_thresholds_of_the_c_library_are_set_and_a_rejection_is_returned(
    monkeypatch: pytest.MonkeyPatch, refused: int | None
) -> None:
    # M_TRIM_THRESHOLD is -1 and M_MMAP_THRESHOLD is -3, in glibc's malloc.h.
    found = {}

    def mallopt(name: int, value: int) -> int:
        found[name] = value
        return int(name != refused)

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    assert keep_freed() is (refused is None)
    assert found == ({-1: 2**25} if refused == -1 else {-1: 2**25, -3: 2**25})


def test_another_c_library_keeps_its_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: object) -> object:
        raise OSError("no such library")

    for library in (lambda _: SimpleNamespace(), missing):
        monkeypatch.setattr(ctypes, "CDLL", library)
        assert keep_freed() is False


def test_freed_pages_are_returned_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: SimpleNamespace(malloc_trim=kept.append))
    release_freed()
    assert kept == [0]


def test_unreachable_cycles_are_collected_before_memory_is_released() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.own = self

    gc.disable()
    try:
        freed = weakref.ref(Cycle())
        assert freed() is not None
        release_freed()
        assert freed() is None
    finally:
        gc.enable()
