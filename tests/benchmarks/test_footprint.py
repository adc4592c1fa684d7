"""The memory and the disk of a server, as `benchmarks.scale.footprint` counts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from benchmarks.harness.system import RunningSystem
from benchmarks.pages.capacity import SYSTEMS, read
from benchmarks.scale.footprint import PACKAGES, folder_bytes, memory_bytes, package_bytes, require_unshared, used_bytes

MIB = 2**20
HOLD_MEMORY = (
    "import subprocess, sys, time; held = bytearray(b'x' * {size}); {more}print('ready', flush=True); time.sleep(600)"
)


def test_a_file_with_two_names_counts_once_and_a_missing_file_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(os.urandom(MIB))
    once = folder_bytes(tmp_path)
    assert once >= MIB
    (tmp_path / "again").hardlink_to(tmp_path / "data")
    assert folder_bytes(tmp_path) - once < MIB
    assert used_bytes([tmp_path / "data", tmp_path / "again", tmp_path / "gone"]) == used_bytes([tmp_path / "data"])


class _System:
    """A system of one role, whose process has started another one."""

    def __init__(self) -> None:
        child = [sys.executable, "-c", HOLD_MEMORY.format(size=40 * MIB, more="")]
        more = f"child = subprocess.Popen({child!r}, stdout=subprocess.PIPE); child.stdout.readline(); "
        self.role = subprocess.Popen(
            [sys.executable, "-c", HOLD_MEMORY.format(size=20 * MIB, more=more)], stdout=subprocess.PIPE
        )
        assert self.role.stdout is not None
        self.role.stdout.readline()
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    def kill(self) -> None:
        """End all processes."""
        for child in psutil.Process(self.role.pid).children():
            child.kill()
        for process in (self.process, self.role):
            process.kill()
            process.communicate()

    def roles(self) -> dict[str, Any]:
        return {"processor-1": {"pid": self.role.pid}, "gone": {"pid": 2**22 + 1}}


def test_a_role_counts_with_its_child_processes_and_an_ended_role_does_not_count() -> None:
    system = _System()
    try:
        sizes = memory_bytes(cast(RunningSystem, system))
        assert sizes.keys() == {"processor-1", "up"}
        assert sizes["processor-1"] > 60 * MIB
        assert sizes["up"] < 40 * MIB
    finally:
        system.kill()


def test_no_memory_is_read_next_to_another_process_with_pytorch() -> None:
    import torch  # noqa: F401  # this process is not part of the system

    system = _System()
    try:
        with pytest.raises(RuntimeError, match=rf"expected no other process with PyTorch, got .*\b{os.getpid()}\b"):
            require_unshared(cast(RunningSystem, system))
    finally:
        system.kill()


def test_the_benchmark_itself_loads_no_pytorch() -> None:
    code = "import sys, benchmarks.scale.footprint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_package_of_a_server_is_measured_with_its_files() -> None:
    sizes = package_bytes()
    assert "\ntorch==" in PACKAGES.read_text()
    assert sizes["torch"] > 100 * MIB
    assert all(sizes.values())


def test_the_committed_measurement_has_both_systems_with_verdicts_and_no_lost_frame() -> None:
    found = read("cost/footprint.json")
    assert found["systems"].keys() == SYSTEMS.keys()
    for each in found["systems"].values():
        assert each["verdicts"] > 0
        assert each["frames_lost"] == 0
        assert each["memory_bytes_in_all"] == sum(each["memory_bytes"].values())
        assert {"mosquitto", "kafka", "bridge", "processor-1", "recorder", "console", "up"} <= each[
            "memory_bytes"
        ].keys()
