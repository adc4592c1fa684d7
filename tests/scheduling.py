"""Assignment of tests to the workers of pytest-xdist: all tests of one `xdist_group` share a worker.

pytest-xdist's own `loadgroup` passes the groups on in the tests' ids. Current pytest does not let it change them, and
the tests of a group are spread over workers without a warning (pytest-dev/pytest-xdist#1386). Here a worker writes the
groups to a file, and the controller reads it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

BROKERS = {"mosquitto", "kafka", "secure_kafka", "secure_postgresql"}
SYSTEMS = "system"
"""The folder of the tests of whole systems."""
SHARED_SYSTEMS = ("test_access.py", "test_console.py", "test_observability.py", "test_up.py")
"""Modules of `SYSTEMS` that share a running system: the first two share one, and the last two share another.

The second module of a pair ends the system."""
FIRST_HALF = {"benchmarks", "consumers", "producers", "schemas"}
"""Folders whose tests with brokers share a worker. The tests with brokers of the other folders share a second worker
with separate brokers: in one worker they would run longer than all other tests."""
CHAINS = ("systems", "brokers-1", "brokers-2")
"""Groups that take longest, although they have few tests."""
GROUPS = "groups_file"
_file = pytest.StashKey[Path]()


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist's classes have no types
    """A scheduler of whole groups: first the chains, then groups with slow tests, then the largest groups.

    A test without a group forms a group. A slow test that started last would run while the other workers are idle.
    """

    def __init__(self, config: pytest.Config, log: Producer, groups: Path) -> None:
        super().__init__(config, log)
        self._file = groups
        self._groups: dict[str, str] = {}
        self._first: list[str] = []

    def schedule(self) -> None:
        """Assign the first groups when all workers have collected the tests. Later calls assign more."""
        if self._file.exists() and (text := self._file.read_text()):  # it is empty if the collection failed
            self._groups, slow = json.loads(text)
            self._first = list(dict.fromkeys((*CHAINS, *map(self._split_scope, slow))))
            self._file.unlink()
        super().schedule()

    def _assign_work_unit(self, node: WorkerController) -> None:
        for scope in reversed(self._first):
            if scope in self.workqueue:
                self.workqueue.move_to_end(scope, last=False)
        super()._assign_work_unit(node)

    def _split_scope(self, nodeid: str) -> str:
        return self._groups.get(nodeid, nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the workers of `--numprocesses auto`: two more than the usable cores, as tests with brokers often wait.

    Each further worker costs the CPU time of another import and collection.
    """
    return len(os.sched_getaffinity(0)) + 2


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """Pass the path of the groups' file to a worker."""
    stash = node.config.stash
    if _file not in stash:
        handle, name = tempfile.mkstemp(prefix="pytest-groups-")
        os.close(handle)
        stash[_file] = Path(name)
    node.workerinput[GROUPS] = str(stash[_file])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling | None:
    """Return our scheduler for `--dist loadgroup`."""
    return GroupScheduling(config, log, config.stash[_file]) if config.getvalue("dist") == "loadgroup" else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Import the test modules before the collection. Each worker begins with another module.

    All workers collect the same modules at the same time. In a fresh clone, each would compile all of them; now it
    finds most of them compiled by another worker.
    """
    worker_input = getattr(session.config, "workerinput", None)
    if worker_input is None or session.config.args != session.config.getini("testpaths"):
        return
    number = worker_input["workerid"].removeprefix("gw")
    if not number.isdigit():
        return
    files = sorted(Path(__file__).parent.rglob("test_*.py"))
    begin = len(files) * int(number) // worker_input["workercount"]
    for file in (*files[begin:], *files[:begin]):
        if str(file.parent) not in sys.path:
            sys.path.insert(0, str(file.parent))
        with suppress(Exception, pytest.skip.Exception, pytest.fail.Exception):
            # After an error the collection imports it again, and reports it.
            importlib.import_module(file.stem)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests of systems, group all tests, and in a worker write the groups to the file.

    Two workers start brokers, each for half of the tests with brokers. Tests of a whole system share one worker: two
    systems never run at the same time. Tests that use a module's fixtures share a worker. Any other test runs in any
    worker.
    """
    _order_systems(items)
    for item in items:
        group = _group(item)
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))
    worker_input = getattr(config, "workerinput", {})
    if GROUPS in worker_input and worker_input["workerid"] == "gw0":
        marks = {item.nodeid: item.get_closest_marker("xdist_group") for item in items}
        groups = {nodeid: mark.args[0] for nodeid, mark in marks.items() if mark is not None}
        slow = [item.nodeid for item in items if item.get_closest_marker("slow")]
        Path(worker_input[GROUPS]).write_text(json.dumps([groups, slow]))


def _order_systems(items: list[pytest.Item]) -> None:
    """Sort the tests of systems in place: those that share no system first, then the modules of `SHARED_SYSTEMS`."""
    places = [place for place, item in enumerate(items) if item.path.parent.name == SYSTEMS]
    ranks = {name: rank for rank, name in enumerate(SHARED_SYSTEMS)}
    ordered = sorted((items[place] for place in places), key=lambda item: ranks.get(item.path.name, -1))
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


def _group(item: pytest.Item) -> str | None:
    assert isinstance(item, pytest.Function)
    if item.get_closest_marker("brokers") or BROKERS & set(item.fixturenames):
        folder = item.path.parent.name
        if folder == SYSTEMS:
            return "systems"
        return "brokers-1" if folder in FIRST_HALF else "brokers-2"
    definitions = item._fixtureinfo.name2fixturedefs.values()
    if any(fixtures[-1].scope == "module" for fixtures in definitions):
        module: str = item.module.__name__
        return module
    return None
