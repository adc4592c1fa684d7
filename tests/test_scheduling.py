"""In a run of several workers, tests that share something expensive share a worker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = """
import os
from pathlib import Path

import pytest

RAN = Path({ran!r})


@pytest.fixture(scope="session")
def kafka():
    return "one of the session"


@pytest.fixture
def topics(kafka):
    return kafka


@pytest.fixture(scope="module")
def costly():
    return "made once for the module"


def note(name):
    (RAN / name).write_text(os.environ["PYTEST_XDIST_WORKER"])


@pytest.mark.parametrize("n", range(6))
def test_session(topics, n):
    note(f"session-{{n}}")


@pytest.mark.brokers
@pytest.mark.parametrize("n", range(6))
def test_own(n):
    note(f"own-{{n}}")


@pytest.mark.parametrize("n", range(6))
def test_module(costly, n):
    note(f"module-{{n}}")


@pytest.mark.xdist_group("named")
@pytest.mark.parametrize("n", range(6))
def test_named(n):
    note(f"named-{{n}}")


@pytest.mark.parametrize("n", range(20))
def test_single(n):
    note(f"single-{{n}}")
"""
OF_A_SYSTEM = """
import os
from pathlib import Path

import pytest


@pytest.mark.brokers
@pytest.mark.parametrize("n", range(8))
def test_system(n):
    (Path({ran!r}) / f"system-{{n}}").write_text(os.environ["PYTEST_XDIST_WORKER"])
"""


def test_tests_of_one_group_run_in_one_worker_and_the_others_in_all(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    ran.mkdir()
    (tmp_path / "test_it.py").write_text(TESTS.format(ran=str(ran)))
    (tmp_path / "system").mkdir()
    (tmp_path / "system" / "test_system.py").write_text(OF_A_SYSTEM.format(ran=str(ran)))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = brokers\n")
    options = ["--rootdir", str(tmp_path), "-p", "tests.scheduling", "-n", "2", "--dist", "loadgroup"]
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    workers = {file.name: file.read_text() for file in ran.iterdir()}
    assert len(workers) == 52
    for group in (("session", "own"), ("system",), ("module",), ("named",)):
        assert len({workers[f"{name}-{n}"] for name in group for n in range(6)}) == 1
    assert workers["system-0"] != workers["own-0"]
    assert set(workers.values()) == {"gw0", "gw1"}
