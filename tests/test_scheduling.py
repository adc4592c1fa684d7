"""Scheduling in a run of several workers: tests that share a costly fixture share a worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.scheduling import SHARED_SYSTEMS

ROOT = Path(__file__).parents[1]
TESTS = """
import os
import time
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
    (RAN / name).write_text(f"{{os.environ['PYTEST_XDIST_WORKER']}} {{time.monotonic_ns()}}")


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


@pytest.mark.slow
@pytest.mark.parametrize("n", range(2))
def test_slow(n):
    note(f"slow-{{n}}")
"""
WITH_BROKERS = """
import os
import time
from pathlib import Path

import pytest


@pytest.mark.brokers
@pytest.mark.parametrize("n", range(4))
def test_brokers(n):
    text = f"{{os.environ['PYTEST_XDIST_WORKER']}} {{time.monotonic_ns()}}"
    (Path({ran!r}) / f"{folder}-{{n}}").write_text(text)
"""


def test_tests_of_one_group_run_in_one_worker_and_the_others_in_all(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    ran.mkdir()
    (tmp_path / "test_it.py").write_text(TESTS.format(ran=str(ran)))
    for folder in ("system", "producers"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"test_{folder}.py").write_text(WITH_BROKERS.format(ran=str(ran), folder=folder))
    for module in SHARED_SYSTEMS:
        text = WITH_BROKERS.format(ran=str(ran), folder=module.removesuffix(".py"))
        (tmp_path / "system" / module).write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    brokers\n    slow\n")
    options = ["--rootdir", str(tmp_path), "-p", "xdist", "-p", "tests.scheduling", "-n", "3", "--dist", "loadgroup"]
    reverse = [str(tmp_path / "system" / module) for module in reversed(SHARED_SYSTEMS)]
    command = [sys.executable, "-m", "pytest", *options, *reverse, str(tmp_path)]
    # Each of the four processes would spend most of its time on the imports of other plugins.
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stdout
    notes = {file.name: file.read_text().split() for file in ran.iterdir()}
    workers = {name: worker for name, (worker, _) in notes.items()}
    assert len(workers) == 54 + 4 * len(SHARED_SYSTEMS)
    shared = [module.removesuffix(".py") for module in SHARED_SYSTEMS]
    for group in (("session", "own"), ("system", *shared), ("producers",), ("module",), ("named",)):
        found = {worker for name, worker in workers.items() if name.partition("-")[0] in group}
        assert len(found) == 1
    # The groups that take longest begin first, each in a worker of its own.
    chains = {workers["system-0"], workers["own-0"], workers["producers-0"]}
    assert set(workers.values()) == chains == {"gw0", "gw1", "gw2"}
    for worker in chains:
        first = min((int(begun), name) for name, (ran_by, begun) in notes.items() if ran_by == worker)[1]
        assert first.partition("-")[0] in {"system", "session", "own", "producers"}
    # A worker runs its slow tests before its other ones.
    for worker in chains:
        own = sorted(
            (int(begun), name.partition("-")[0]) for name, (ran_by, begun) in notes.items() if ran_by == worker
        )
        kinds = [kind for _, kind in own if kind in {"slow", "module", "named", "single"}]
        assert "slow" not in kinds[kinds.count("slow") :]
    # The modules that share a system ran in their order, although the command line names them in reverse.
    begun = {name: int(at) for name, (_, at) in notes.items() if name.partition("-")[0] in {"system", *shared}}
    assert [name.partition("-")[0] for name in sorted(begun, key=begun.__getitem__)][::4] == ["system", *shared]
