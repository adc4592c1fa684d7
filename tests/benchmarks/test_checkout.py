"""Benchmarks of another checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.checkout import run_in_checkout
from benchmarks.speed.latency import run


def test_a_benchmark_of_another_checkout_is_found_in_any_folder_and_runs_there(tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks" / "moved"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "pace.py").write_text(
        "import json, os, subprocess, sys\nfrom pathlib import Path\n"
        "command = [sys.executable, '-P', '-c', 'import benchmarks; print(benchmarks.__file__)']\n"
        "started = subprocess.run(command, capture_output=True, text=True).stdout.strip()\n"
        "Path(sys.argv[-1]).write_text(json.dumps([__spec__.name, os.getcwd(), sys.argv[1:3], started]))\n"
    )
    assert run_in_checkout(tmp_path, "pace.py", "--rounds", 2) == [
        "benchmarks.moved.pace", str(tmp_path), ["--rounds", "2"], str(folder.parent / "__init__.py"),
    ]  # fmt: skip
    with pytest.raises(FileNotFoundError, match=r"expected cost\.py, found none"):
        run_in_checkout(tmp_path, "cost.py")


@pytest.fixture
def other_checkout(tmp_path: Path) -> Path:
    """Write a checkout whose `pointillist` prints its arguments, and return its folder."""
    command = tmp_path / "infra" / "cli"
    command.mkdir(parents=True)
    (command.parent / "__init__.py").touch()
    (command / "__init__.py").touch()
    (command / "__main__.py").write_text("import sys\nprint('the other checkout:', *sys.argv[1:3])\n")
    return tmp_path


def test_the_latency_of_another_checkout_is_measured_with_its_packages(other_checkout: Path) -> None:
    with pytest.raises(RuntimeError, match=r"`up` has ended: the other checkout: up --state"):
        run(-1, -1.0, 1.0, other_checkout)


def test_the_bridge_of_another_checkout_runs_with_its_packages(other_checkout: Path) -> None:
    script = "import pathlib, sys; from benchmarks.speed.bridge import run_checkout; "
    script += "run_checkout(pathlib.Path(sys.argv[1]), 'nowhere', 1, 'nowhere:1')"
    command = [sys.executable, "-c", script, str(other_checkout)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "the other checkout: bridge --mqtt\n", done.stderr
