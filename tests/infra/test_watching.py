"""The monitoring servers of `up`, and the supervisor that restarts roles."""

from __future__ import annotations

import errno
import json
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread, Timer
from typing import Any
from unittest.mock import Mock

import pytest

from benchmarks.harness import prometheus as queries
from infra.local import process as process_module
from infra.local.disk_space import DiskSpace
from infra.local.ports import Ports, is_free
from infra.local.process import ProcessId
from infra.local.prometheus import ALERTMANAGERS, TARGETS, Prometheus
from infra.local.role_table import RoleTable, read_roles
from infra.local.service import Service
from infra.state_folder import Layout
from infra.up.processes import Role, RoleProcess
from infra.up.settings import UpSettings
from infra.up.supervisor import MOST_FAILURES, RoleSupervisor
from infra.up.watching import MonitoringServers
from schemas.errors import BrokerError, ConfigError
from tests.infra.exiting_role import ExitingRole
from tests.infra.grafana_stand_in import install_grafana
from tests.waiting import PATIENCE_S, wait_until

CONSOLE = "http://127.0.0.1:4711"


@contextmanager
def watching(folder: Path, lines: list[str], receivers: Path | None = None) -> Iterator[dict[str, Role]]:
    roles: dict[str, Role] = {}

    def start_role(role: Role) -> None:
        roles[role.name] = role
        role.process.start()

    servers = MonitoringServers(UpSettings(state=folder, receivers=receivers), Layout(folder), Ports(folder))
    try:
        servers.start(start_role, lines.append, CONSOLE)
        yield roles
    finally:
        servers.close()
        for role in roles.values():
            role.process.stop(10)


@pytest.mark.brokers
def test_each_monitoring_server_gets_the_addresses_of_the_others(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_grafana(tmp_path, monkeypatch)
    lines: list[str] = []
    with watching(state_dir, lines) as roles:
        wait_until(lambda: bool(lines), "Grafana, which is started last")
        addresses = {name: f"http://{role.listen()}" for name, role in roles.items()}
        # Debian's Prometheus and Alertmanager have no pages.
        assert lines == [f"Grafana: {addresses['grafana']}/"]
        prometheus = queries.Prometheus(addresses["prometheus"].removeprefix("http://"))

        def alertmanagers() -> list[str]:
            return [each["url"] for each in prometheus.ask("alertmanagers")["activeAlertmanagers"]]

        wait_until(lambda: alertmanagers() == [f"{addresses['alertmanager']}/api/v2/alerts"], "the Alertmanager")
        variables = json.loads((state_dir / "grafana" / "grafana.log").read_text().splitlines()[0])["environment"]
        assert variables["POINTILLIST_PROMETHEUS_URL"] == addresses["prometheus"]
        assert variables["POINTILLIST_CONSOLE_URL"] == CONSOLE


@pytest.mark.brokers
def test_a_run_continues_without_a_grafana_that_cannot_start(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_grafana(tmp_path, monkeypatch, "#!/bin/sh\necho no such flag >&2\nexit 1\n")
    lines: list[str] = []
    with watching(state_dir, lines) as roles:
        wait_until(lambda: bool(lines), "the line about Grafana")
        assert lines[0].startswith("going on without dashboards: ")
        assert "no such flag" in lines[0]
        assert roles["prometheus"].process.poll() is None


def damage(folder: Path, server: str) -> None:
    """Write a file of a server as a power cut leaves it, empty or truncated."""
    data = folder / server / "data"
    if server == "alertmanager":
        data.mkdir(parents=True)
        (data / "nflog").write_bytes(b"\x20\x08\x01cut")
        return
    block = data / "01HZXXXXXXXXXXXXXXXXXXXXXX"
    (block / "chunks").mkdir(parents=True)
    meta = {"ulid": block.name, "minTime": 1, "maxTime": 2, "stats": {}, "compaction": {"level": 1}, "version": 1}
    (block / "meta.json").write_text(json.dumps(meta))
    (block / "index").write_bytes(b"")


@pytest.mark.brokers
@pytest.mark.parametrize(("server", "line_count"), [("prometheus", 1), ("alertmanager", 2)])
def test_a_run_continues_without_a_server_with_damaged_files(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str, line_count: int
) -> None:
    install_grafana(tmp_path, monkeypatch)
    damage(state_dir, server)
    lines: list[str] = []
    with watching(state_dir, lines) as roles:
        assert lines[0].startswith(f"going on without {server}: expected an answer within 60 s, got the end of")
        wait_until(lambda: len(lines) == line_count, "Grafana, unless its Prometheus is missing")
        assert ("grafana" in roles) == (server != "prometheus")
        assert [role.name for role in roles.values() if role.process.poll() is not None] == [server]
        alertmanagers = json.loads((state_dir / "prometheus" / ALERTMANAGERS).read_text())
        assert bool(alertmanagers) == (server != "alertmanager")


@pytest.mark.brokers
@pytest.mark.parametrize("server", ["prometheus", "alertmanager"])
def test_a_run_with_receivers_fails_without_the_servers_that_notify_them(
    state_dir: Path, tmp_path: Path, server: str
) -> None:
    receivers = tmp_path / "receivers.yml"
    receivers.write_text("receivers: [{name: duty, webhook_configs: [{url: 'http://127.0.0.1:9/'}]}]\n")
    damage(state_dir, server)
    with (
        pytest.raises(BrokerError, match=f"^{server}: expected an answer"),
        watching(state_dir, [], receivers),
    ):
        pass


def test_prometheus_starts_without_the_targets_of_an_earlier_run(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for server in ("prometheus", "grafana", "alertmanager"):
        found = "/usr/bin/prometheus" if server == "prometheus" else None
        monkeypatch.setattr(f"infra.up.watching.{server}_binary", lambda found=found: found)
    Prometheus(state_dir).scrape({"fleet": {"metrics": "127.0.0.1:9100"}})
    targets, begun = state_dir / "prometheus" / TARGETS, list[list[object]]()
    servers = MonitoringServers(UpSettings(state=state_dir), Layout(state_dir), Ports(state_dir))
    servers.start(lambda _: begun.append(json.loads(targets.read_text())), lambda _: None, CONSOLE)
    assert begun == [[]]


@pytest.mark.parametrize("status", [1, 2])
def test_an_optional_role_that_keeps_exiting_does_not_end_the_run(
    state_dir: Path, tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.up.supervisor.LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr("infra.up.supervisor.FIRST_PAUSE_S", 0.01)
    lines: list[str] = []
    with RoleTable(state_dir) as table:
        supervisor = RoleSupervisor(table, DiskSpace(state_dir, least_bytes=1), lines.append)
        role = ExitingRole(status, tmp_path / "role.log", "broken")
        supervisor.start(Role("grafana", role, log=role.log, optional=True))

        def given_up() -> bool:
            supervisor.watch()
            return len(lines) > 1

        wait_until(given_up, "the supervisor to give up")
        assert lines == [f"grafana died (exit status {status}), started again", "going on without grafana: broken"]
        assert supervisor.restarts == {"grafana": MOST_FAILURES}
        supervisor.watch()
        # The role is no longer in the table, and the supervisor does not restart it.
        assert read_roles(state_dir) == {}
        supervisor.close()


class StandInProcess:
    """A stand-in for a role's process, whose exit status and failures the test sets."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.failure: Exception | None = None
        self.may_start, self.starts = Event(), 0
        self.may_start.set()

    def start(self) -> ProcessId:
        self.may_start.wait(PATIENCE_S)
        self.starts += 1
        if self.failure is not None:
            raise self.failure
        self.status = None
        return ProcessId(1, 2)

    def poll(self) -> int | None:
        return self.status

    def stop(self, deadline_s: float = 0.0) -> int | None:
        self.status = 0
        return self.status


class RoleStandIn(StandInProcess, RoleProcess):
    """A stand-in for the process of one of our own roles."""


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def supervisor(state_dir: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[RoleSupervisor]:
    monkeypatch.setattr("infra.up.supervisor.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("infra.up.supervisor.LONGEST_PAUSE_S", 0.01)
    with RoleTable(state_dir) as table:
        supervisor = RoleSupervisor(table, DiskSpace(state_dir, least_bytes=1), lines.append)
        yield supervisor
        supervisor.close()


def test_a_role_that_is_not_ready_in_time_is_named_with_the_last_line_of_its_log(
    supervisor: RoleSupervisor, tmp_path: Path
) -> None:
    (tmp_path / "log").write_text("first\nno database\n\n")
    role = Role("bridge", StandInProcess(), metrics="127.0.0.1:1", log=tmp_path / "log")
    supervisor.start(role)
    checks: list[None] = []
    with pytest.raises(BrokerError, match=r"^bridge: expected readiness within 0 s, got none\. Last .*: no database$"):
        supervisor.await_health([role], 0.0, lambda: checks.append(None))
    assert len(checks) == 1
    supervisor.await_health([Role("console", StandInProcess())], 0.0, lambda: None)


def test_an_unexpected_error_of_a_restart_is_raised(supervisor: RoleSupervisor) -> None:
    process = StandInProcess()
    supervisor.start(Role("bridge", process))
    process.status, process.failure = 1, RuntimeError("a bug")

    def raised() -> bool:
        try:
            supervisor.watch()
        except RuntimeError as error:
            return str(error) == "a bug"
        return False

    wait_until(raised, "the error of its start")


@pytest.mark.parametrize("optional", [False, True])
def test_a_role_is_retried_if_the_machine_cannot_start_its_process(
    supervisor: RoleSupervisor, lines: list[str], monkeypatch: pytest.MonkeyPatch, optional: bool
) -> None:
    process = StandInProcess()
    supervisor.start(Role("prometheus", process, optional=optional))
    process.status, process.failure = -9, BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    # A machine that cannot start a process cannot start a thread either.
    monkeypatch.setattr(Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))

    def reported() -> bool:
        supervisor.watch()
        return len(lines) == 2

    wait_until(reported, "the reason")
    process.failure = None
    monkeypatch.undo()

    def runs() -> bool:
        supervisor.watch()
        return process.poll() is None

    wait_until(runs, "its restart")
    why = "[Errno 11] Resource temporarily unavailable"
    assert lines[1:] == [f"prometheus did not start and is tried again: {why}"]


def test_a_role_that_does_not_restart_ends_the_run_with_the_reason(
    supervisor: RoleSupervisor, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.up.supervisor.STEADY_S", 0.0)
    process = StandInProcess()
    supervisor.start(Role("kafka", process))
    process.status, process.failure = -9, BrokerError("kafka: expected its port 9092 to be free again, got one in use.")

    ended: list[str] = []

    def given_up() -> bool:
        try:
            supervisor.watch()
        except BrokerError as error:
            ended.append(str(error))
        return bool(ended)

    wait_until(given_up, "the supervisor to give up")
    assert lines == [
        "kafka died (signal 9), started again",
        "kafka did not start and is tried again: expected its port 9092 to be free again, got one in use.",
    ]
    assert ended[0].endswith("9 exits in a row: expected its port 9092 to be free again, got one in use.")


def failures_of(supervisor: RoleSupervisor, process: StandInProcess, statuses: Iterable[int]) -> None:
    """Let a role end with each of `statuses` in turn, and wait for each restart."""
    for status in statuses:
        starts, process.status = process.starts, status

        def restarted(starts: int = starts) -> bool:
            supervisor.watch()
            return process.starts > starts and not supervisor._starting

        wait_until(restarted, "its restart")


def test_a_role_that_was_ready_once_never_ends_the_others(
    supervisor: RoleSupervisor, lines: list[str], tmp_path: Path
) -> None:
    console, log = RoleStandIn(), tmp_path / "console.log"
    log.write_text("error: console: expected users, got a damaged line. Correct the file.\n")
    supervisor.start(Role("console", console, log=log))
    supervisor.keep(later=True)

    failures_of(supervisor, console, [2] * (MOST_FAILURES + 3))
    assert lines == ["console died (console: expected users, got a damaged line. Correct the file.), started again"]
    later = RoleStandIn()
    supervisor.start(Role("fleet", later, log=log))
    later.status = 2
    with pytest.raises(ConfigError, match=r"^fleet: console: expected users"):
        supervisor.watch()


def test_a_fleet_never_ends_the_others_once_it_has_run_steadily(
    supervisor: RoleSupervisor, lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("infra.up.supervisor.STEADY_S", 0.0)
    fleet, log = RoleStandIn(), tmp_path / "fleet.log"
    log.write_text("error: cameras.toml: expected a table, got a list. Correct the file.\n")
    supervisor.keep(later=True)
    supervisor.start(Role("fleet", fleet, log=log))
    supervisor.watch()
    failures_of(supervisor, fleet, [2, 2])
    assert set(lines) == {"fleet died (cameras.toml: expected a table, got a list. Correct the file.), started again"}


def test_a_fleet_ends_a_run_of_limited_time_also_after_a_steady_run(
    supervisor: RoleSupervisor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("infra.up.supervisor.STEADY_S", 0.0)
    fleet, log = RoleStandIn(), tmp_path / "fleet.log"
    log.write_text("error: cameras.toml: expected a table, got a list. Correct the file.\n")
    supervisor.keep(later=False)
    supervisor.start(Role("fleet", fleet, log=log))
    supervisor.watch()
    fleet.status = 2
    with pytest.raises(ConfigError, match=r"^fleet: cameras.toml: expected a table"):
        supervisor.watch()


def test_the_reason_of_a_role_that_cannot_start_again_is_printed_after_other_ends_too(
    supervisor: RoleSupervisor, lines: list[str], tmp_path: Path
) -> None:
    console, log = RoleStandIn(), tmp_path / "console.log"
    log.write_text("error: expected users. Correct the file.\n")
    supervisor.start(Role("console", console, log=log))
    supervisor.keep(later=True)
    failures_of(supervisor, console, [-9, -9, 2, 2, 75, 75])
    assert lines == [
        "console died (signal 9), started again",
        "console died (expected users. Correct the file.), started again",
    ]


def test_a_role_that_keeps_ending_is_named_with_the_last_line_of_its_log(
    supervisor: RoleSupervisor, lines: list[str], tmp_path: Path
) -> None:
    recorder, log = RoleStandIn(), tmp_path / "recorder.log"
    log.write_text("OverflowError: too large\n")
    supervisor.start(Role("recorder", recorder, log=log))
    supervisor.keep(later=True)
    failures_of(supervisor, recorder, [1] * (MOST_FAILURES + 3))
    assert lines == [
        "recorder died (exit status 1), started again",
        f"recorder has ended {MOST_FAILURES + 1} times in a row and is tried again within 0.01 s: "
        "OverflowError: too large",
    ]


def test_the_downtime_of_a_role_includes_the_pauses_between_its_starts(
    supervisor: RoleSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.up.supervisor.FIRST_PAUSE_S", 0.3)
    monkeypatch.setattr("infra.up.supervisor.LONGEST_PAUSE_S", 0.3)
    process = StandInProcess()
    supervisor.start(Role("console", process))
    supervisor.keep(later=True)
    failures_of(supervisor, process, [1] * 4)
    supervisor.close()
    assert supervisor.away_s["console"] > 3 * 0.15  # three pauses of at least half the delay


def test_a_crashed_server_is_restarted_whatever_its_exit_status(supervisor: RoleSupervisor) -> None:
    process = StandInProcess()
    supervisor.start(Role("prometheus", process, log=Path("/nowhere")))
    process.status = 2  # the exit status of a Go program that panics

    def restarted() -> bool:
        supervisor.watch()
        return process.starts == 2

    wait_until(restarted, "its restart")


def test_a_run_continues_without_an_optional_role_with_invalid_files_at_its_restart(
    supervisor: RoleSupervisor, lines: list[str]
) -> None:
    process = StandInProcess()
    supervisor.start(Role("alertmanager", process, optional=True))
    process.status, process.failure = 1, ConfigError("receivers.yml: expected a map, got a list")

    def given_up() -> bool:
        supervisor.watch()
        return len(lines) == 3

    wait_until(given_up, "the supervisor to give up")
    why = "receivers.yml: expected a map, got a list"
    assert lines[1:] == [
        f"alertmanager did not start and is tried again: {why}",
        f"going on without alertmanager: {why}",
    ]


def test_a_role_is_removed_only_after_its_pending_start(supervisor: RoleSupervisor) -> None:
    process = StandInProcess()
    supervisor.start(Role("bridge", process))
    process.may_start.clear()
    process.status = 1

    def restarting() -> bool:
        supervisor.watch()
        return bool(supervisor._starting)

    wait_until(restarting, "the restart")
    Timer(0.05, process.may_start.set).start()
    supervisor.forget("bridge")
    assert process.starts == 2
    assert not supervisor._roles
    assert not supervisor._starting


class ListeningServer(Service):
    """A server whose port another program may take."""

    role = "server"
    port_names = ("server",)

    def _command(self) -> list[str]:
        code = f"import socket, time; server = socket.create_server(('{self.host}', {self.port})); time.sleep(600)"
        return [sys.executable, "-c", code]

    def _answers(self) -> bool:
        return not is_free(self.port)


def test_a_start_that_waits_for_its_port_does_not_delay_the_end_of_the_run(
    supervisor: RoleSupervisor, state_dir: Path
) -> None:
    server = ListeningServer(state_dir, ready_s=10 * PATIENCE_S)
    supervisor.start(Role("server", server))
    supervisor.keep(later=True)
    server.kill()
    wait_until(lambda: is_free(server.port), "its port")
    with socket.create_server((server.host, server.port)):

        def restarting() -> bool:
            supervisor.watch()
            return "server" in supervisor._starting

        wait_until(restarting, "its restart")
        starting = supervisor._starting["server"]
        ending = Thread(target=supervisor.forget, args=("server",), daemon=True)
        ending.start()
        ending.join(PATIENCE_S)
        assert not ending.is_alive()
    assert isinstance(starting.exception(), BrokerError)


def test_a_server_is_started_again_after_a_start_without_a_process(
    supervisor: RoleSupervisor, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, spawn = ListeningServer(state_dir), process_module.spawn
    supervisor.start(Role("server", server))
    failures = [OSError(errno.ENOMEM, "Cannot allocate memory")]

    def scarce(*arguments: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return spawn(*arguments, **options)

    monkeypatch.setattr(process_module, "spawn", scarce)
    server.kill()

    def restarted() -> bool:
        supervisor.watch()
        return not failures and server.poll() is None and not is_free(server.port)

    wait_until(restarted, "its restart")
    supervisor.forget("server")
    server.stop()


def test_roles_that_start_slowly_do_not_block_the_start_of_another(
    supervisor: RoleSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Role, "healthy", lambda role: False)
    waiting, kafka = [StandInProcess() for _ in range(20)], StandInProcess()
    for number, process in enumerate(waiting):
        supervisor.start(Role(f"processor-{number}", process))
    supervisor.start(Role("kafka", kafka))
    for process in (*waiting, kafka):
        process.status = -9

    def restarted() -> bool:
        supervisor.watch()
        return kafka.starts == 2 and all(process.starts == 2 for process in waiting)

    wait_until(restarted, "the start of all")
