"""What watches a run of `up`: started where it is installed, each told of the one before."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.local.disk_space import DiskSpace
from infra.local.ports import Ports
from infra.local.process import Child, ProcessId
from infra.local.role_table import RoleTable
from infra.state_folder import Layout
from infra.up.processes import Role
from infra.up.settings import UpSettings
from infra.up.supervisor import MOST_FAILURES, RoleSupervisor
from infra.up.watching import Watching
from tests.infra.grafana_stand_in import install_grafana
from tests.waiting import wait_until

CONSOLE = "http://127.0.0.1:4711"


@contextmanager
def watching(folder: Path, said: list[str]) -> Iterator[dict[str, Role]]:
    roles: dict[str, Role] = {}

    def begin(role: Role) -> None:
        roles[role.name] = role
        role.process.start()

    made = Watching(UpSettings(state=folder), Layout(folder), Ports(folder))
    made.start(begin, said.append, CONSOLE)
    try:
        yield roles
    finally:
        made.close()
        for role in roles.values():
            role.process.stop(10)


@pytest.mark.brokers
def test_each_is_started_and_told_where_the_others_are(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_grafana(tmp_path, monkeypatch)
    said: list[str] = []
    with watching(state_dir, said) as roles:
        wait_until(lambda: bool(said), "Grafana, the last")
        addresses = {name: f"http://{role.listen()}" for name, role in roles.items()}
        # Debian's Prometheus and Alertmanager have no pages.
        assert said == [f"Grafana: {addresses['grafana']}/"]
        told = f"{addresses['prometheus']}/api/v1/alertmanagers"

        def alertmanagers() -> list[str]:
            with urllib.request.urlopen(told, timeout=5) as answer:
                return [each["url"] for each in json.load(answer)["data"]["activeAlertmanagers"]]

        wait_until(lambda: alertmanagers() == [f"{addresses['alertmanager']}/api/v2/alerts"], "the Alertmanager")
        given = json.loads((state_dir / "grafana" / "grafana.log").read_text().splitlines()[0])["environment"]
        assert given["POINTILLIST_PROMETHEUS_URL"] == addresses["prometheus"]
        assert given["POINTILLIST_CONSOLE_URL"] == CONSOLE


@pytest.mark.brokers
def test_a_run_goes_on_without_a_grafana_that_cannot_start(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_grafana(tmp_path, monkeypatch, "#!/bin/sh\necho no such flag >&2\nexit 1\n")
    said: list[str] = []
    with watching(state_dir, said) as roles:
        wait_until(lambda: bool(said), "what became of it")
        assert said[0].startswith("going on without dashboards: ")
        assert "no such flag" in said[0]
        assert roles["prometheus"].process.poll() is None


class Ends:
    """A role that ends at once, again and again."""

    def __init__(self, status: int, log: Path) -> None:
        self.log = log
        self.child = Child([sys.executable, "-c", f"print('broken'); raise SystemExit({status})"], log)

    def start(self) -> ProcessId:
        return self.child.start()

    def poll(self) -> int | None:
        return self.child.poll()

    def stop(self, deadline_s: float) -> None:
        self.child.stop(deadline_s)


@pytest.mark.parametrize("status", [1, 2])
def test_a_role_that_others_can_do_without_ends_nothing(
    state_dir: Path, tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.up.supervisor.LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr("infra.up.supervisor.FIRST_PAUSE_S", 0.01)
    said: list[str] = []
    with RoleTable(state_dir) as table:
        supervisor = RoleSupervisor(table, DiskSpace(state_dir, least_bytes=1), said.append)
        role = Ends(status, tmp_path / "role.log")
        supervisor.start(Role("grafana", role, log=role.log, optional=True))

        def given_up() -> bool:
            supervisor.watch()
            return len(said) > 1

        wait_until(given_up, "that it is given up")
        assert said == [f"grafana died (exit status {status}), started again", "going on without grafana: broken"]
        assert supervisor.restarts == {"grafana": MOST_FAILURES}
        supervisor.watch()
        supervisor.close()
