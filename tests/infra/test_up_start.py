"""The start of `up`: the order of roles, and the replacement of processors if Kafka loses its reserved port."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.state_folder import Layout
from infra.up import run as up
from infra.up.interrupts import Interrupts
from infra.up.settings import UpSettings

RESERVED, OTHER = "127.0.0.1:1000", "127.0.0.1:2000"


class FakeKafka:
    """A stand-in for Kafka, whose start uses another port if the reserved one is taken."""

    def __init__(self, taken: bool) -> None:
        self.nodes = [SimpleNamespace(role="kafka", log=Path("kafka.log"), listen=RESERVED)]
        self.bootstrap = RESERVED
        self._taken = taken

    def reserve(self) -> str:
        return RESERVED

    def started(self) -> None:
        self.bootstrap = OTHER if self._taken else RESERVED


class FakeSupervisor:
    """A supervisor that starts no process and lists the running roles with the address of their Kafka."""

    def __init__(self, kafka: FakeKafka) -> None:
        self.running: list[tuple[str, str]] = []
        self.stopped: list[tuple[str, str]] = []
        self.awaited: list[tuple[str, str]] = []
        self.kept: list[tuple[str, str]] = []
        self.keeps_fleets: bool | None = None
        self._kafka = kafka

    def start(self, role: Any) -> None:
        if role.name == "kafka":
            self._kafka.started()
        elif role.name != "mosquitto":
            self.running.append((role.name, role.kafka))

    def stop(self, role: Any, deadline_s: float) -> None:
        self.running.remove((role.name, role.kafka))
        self.stopped.append((role.name, role.kafka))

    def await_health(self, roles: list[Any], *_: object) -> None:
        self.awaited = [(role.name, role.kafka) for role in roles]

    def keep(self, *, later: bool) -> None:
        self.kept, self.keeps_fleets = list(self.running), later


class FakeRoles:
    """A stand-in for the roles of a run with this Kafka."""

    def __init__(self, kafka: str) -> None:
        self._kafka = kafka

    def _role(self, name: str) -> Any:
        return SimpleNamespace(name=name, kafka=self._kafka, url=None)

    def processors(self) -> list[Any]:
        return [self._role("processor-1"), self._role("processor-2")]

    def bridges(self) -> list[Any]:
        return [self._role("bridge")]

    def recorder(self) -> Any:
        return self._role("recorder")

    def console(self, **_: object) -> Any:
        return self._role("console")

    def monitor(self, **_: object) -> Any:
        return self._role("monitor")

    def fleets(self, parts: int) -> list[Any]:
        return [self._role(f"fleet-{number + 1}") for number in range(parts)]


def partial_run(folder: Path, kafka: FakeKafka, monkeypatch: pytest.MonkeyPatch) -> tuple[up._Run, FakeSupervisor]:
    """Return a run with the parts that its start needs, and its supervisor."""
    run: Any = up._Run.__new__(up._Run)
    supervisor = FakeSupervisor(kafka)
    idle = SimpleNamespace(
        print_line=lambda _: None, begin=lambda *_: None, start=lambda *_: None, scrape=lambda _: None,
        is_enabled=False, alertmanager=None, reserve=lambda: None, listen="127.0.0.1:1", log=folder / "mosquitto.log",
    )  # fmt: skip
    run._settings, run._layout, run._asked = UpSettings(plain=True), Layout(folder), Interrupts()
    run._kafka, run._supervisor = kafka, supervisor
    run._live = run._mosquitto = run._watching = run._system = idle
    run._roles, run._fleets, run._scraped, run._parts, run._begun = [], [], [], 2, 0.0
    monkeypatch.setattr(up._Run, "_local", lambda _, address: FakeRoles(address))
    monkeypatch.setattr(up._Run, "_create_topics", lambda _: asyncio.sleep(0))
    return run, supervisor


@pytest.mark.parametrize("taken", [False, True])
def test_processors_started_with_a_port_that_kafka_lost_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    run, supervisor = partial_run(tmp_path, FakeKafka(taken), monkeypatch)
    run.start()
    processors = ["processor-1", "processor-2"]
    assert supervisor.stopped == [(name, RESERVED) for name in processors if taken]
    address = OTHER if taken else RESERVED
    rest = [*processors, "bridge", "recorder", "console", "monitor"]
    assert supervisor.kept == supervisor.awaited == [(name, address) for name in rest]
    assert supervisor.running == [(name, address) for name in [*rest, "fleet-1", "fleet-2"]]


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_only_a_run_of_unlimited_time_keeps_its_fleets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float | None
) -> None:
    run, supervisor = partial_run(tmp_path, FakeKafka(taken=False), monkeypatch)
    run._settings = UpSettings(plain=True, seconds=seconds)
    run.start()
    assert supervisor.keeps_fleets is (seconds is None)


@pytest.mark.parametrize("alertmanager", ["http://127.0.0.1:9093", None])
def test_the_monitor_starts_after_alertmanager_with_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alertmanager: str | None
) -> None:
    run, supervisor = partial_run(tmp_path, FakeKafka(taken=False), monkeypatch)
    watching: Any = SimpleNamespace(is_enabled=True, alertmanager=None, scrape=lambda _: None)
    passed: list[dict[str, object]] = []

    def start(*_: object) -> None:
        assert ("monitor", RESERVED) not in supervisor.running
        watching.alertmanager = alertmanager

    def monitor(roles: FakeRoles, **options: object) -> Any:
        passed.append(options)
        return roles._role("monitor")

    watching.start, run._watching = start, watching
    monkeypatch.setattr(FakeRoles, "monitor", monitor)
    run.start()
    assert passed == [{"alertmanager": alertmanager, "console": None}]
    assert ("monitor", RESERVED) in supervisor.awaited
