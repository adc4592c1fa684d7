"""Which tests share a worker when several run: those of one `xdist_group`.

pytest-xdist's own `loadgroup` hands the groups over in the tests' ids, which pytest no longer lets it change, and
scatters them without a word (pytest-dev/pytest-xdist#1386). Here a worker writes them to a file, and the controller
reads it.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

BROKERS = {"mosquitto", "kafka", "secure_kafka", "secure_postgresql"}
SYSTEMS = "system"
"""The folder of the tests of whole systems."""
SHARED_SYSTEMS = ("test_access.py", "test_console.py", "test_observability.py", "test_up.py")
"""Modules of `SYSTEMS` that share a running system with another one: the first two one, and the last two one.

The second module of a pair ends the system."""
FIRST_HALF = {"benchmarks", "consumers", "producers", "schemas"}
"""Folders whose tests with brokers share a worker. Those of the other folders share another, with brokers of its own:
together they would run longer than all other tests."""
CHAINS = ("systems", "brokers-1", "brokers-2")
"""Groups that run longest, although they have few tests."""
GROUPS = "groups_file"
_file = pytest.StashKey[Path]()


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist's classes have no types
    """Hands out whole groups: the chains, those with slow tests, the largest. A test without a group is one by itself.

    A slow test that began last would run alone while the other workers are idle.
    """

    def __init__(self, config: pytest.Config, log: Producer, groups: Path) -> None:
        super().__init__(config, log)
        self._file = groups
        self._groups: dict[str, str] = {}
        self._first: list[str] = []

    def schedule(self) -> None:
        """Begin, when all workers have collected; give out more later."""
        if self._file.exists():
            self._groups, slow = json.loads(self._file.read_text())
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
    """`--numprocesses auto`: one more than the cores that this process may use, because tests with brokers often wait.

    Each worker more costs the CPU time of another import and collection.
    """
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """Tell a worker where to write the groups."""
    stash = node.config.stash
    if _file not in stash:
        handle, name = tempfile.mkstemp(prefix="pytest-groups-")
        os.close(handle)
        stash[_file] = Path(name)
    node.workerinput[GROUPS] = str(stash[_file])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling | None:
    """Ours for `--dist loadgroup`."""
    return GroupScheduling(config, log, config.stash[_file]) if config.getvalue("dist") == "loadgroup" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests of systems, group all tests, and in a worker write the groups down.

    The session's brokers run in two workers, each with half of the tests with brokers. Tests of a whole system share
    one worker: two systems never run at the same time. A module's fixtures are made in one worker. Every other test
    runs in any worker.
    """
    _order_systems(items)
    for item in items:
        group = _group(item)
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))
    given = getattr(config, "workerinput", {})
    if GROUPS in given and given["workerid"] == "gw0":
        marks = {item.nodeid: item.get_closest_marker("xdist_group") for item in items}
        groups = {nodeid: mark.args[0] for nodeid, mark in marks.items() if mark is not None}
        slow = [item.nodeid for item in items if item.get_closest_marker("slow")]
        Path(given[GROUPS]).write_text(json.dumps([groups, slow]))


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
