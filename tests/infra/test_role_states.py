"""The states of roles in `status`, in the table of `up` and in the console."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from rich.console import Console

from consumers.console.data.roles import NO_ANSWER_S, RoleState
from infra.local.process import ProcessId
from infra.local.role_table import RoleTable
from infra.process.metrics_server import serve
from infra.state_folder import Layout
from infra.up import system_state
from infra.up.processes import fetch_health
from infra.up.scrape import RunTotals
from infra.up.settings import UpSettings, bundle_folder, scenario_document, with_bundle_of
from infra.up.system_line import SystemLine
from infra.up.system_state import role_states
from infra.up.table import LiveTable
from producers.simulation.scenario import parse_scenario
from schemas.errors import BundleError, ConfigError
from schemas.metrics import KAFKA_GROUP_LAG, LAG
from schemas.runtime.health import Health
from schemas.topics import PROCESSORS_GROUP
from tests.infra.command_line import call
from tests.producers.web_rig import web_server
from tests.waiting import PATIENCE_S, wait_until


class Roles:
    """A state folder whose roles are threads of this process, each with a health page."""

    def __init__(self, folder: Path, closing: ExitStack) -> None:
        self.layout = Layout(folder)
        self.table = closing.enter_context(RoleTable(folder))
        self._closing = closing
        me = ProcessId.of(os.getpid())
        assert me is not None
        self.me = me

    def add_answering(self, name: str, *, ready: bool = True, registry: CollectorRegistry | None = None) -> None:
        """Add a role with a health page."""
        health = Health()
        health.set("kafka", ready, "" if ready else "no broker")
        server = serve(registry or CollectorRegistry(), health, ("127.0.0.1", 0))
        self._closing.callback(server.server_close)
        self._closing.callback(server.shutdown)
        self.table.record(name, self.me, metrics=f"127.0.0.1:{server.server_address[1]}")

    def add_hanging(self, name: str) -> None:
        """Add a role that accepts connections and never answers, as a stopped process does."""
        listening = self._closing.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.table.record(name, self.me, metrics=f"127.0.0.1:{listening.getsockname()[1]}")

    def states(self) -> dict[str, RoleState]:
        return {each.name: each for each in role_states(self.layout)}


@pytest.fixture
def roles(tmp_path: Path) -> Iterator[Roles]:
    with ExitStack() as closing:
        yield Roles(tmp_path, closing)


def registry_with(name: str, value: float, **labels: str) -> CollectorRegistry:
    registry = CollectorRegistry()
    metric = {LAG.name: LAG, KAFKA_GROUP_LAG.name: KAFKA_GROUP_LAG}[name].on(registry)
    (metric.labels(**labels) if labels else metric).set(value)
    return registry


def test_roles_that_hang_do_not_answer_and_are_queried_concurrently(
    roles: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles.add_answering("bridge")
    for number in range(12):
        roles.add_hanging(f"processor-{number}")
    all_requested = threading.Barrier(13, timeout=PATIENCE_S)

    def fetch_together(address: str) -> object:
        all_requested.wait()
        return fetch_health(address)

    monkeypatch.setattr(system_state, "fetch_health", fetch_together)
    found = roles.states()
    assert found["bridge"].is_well
    assert {each.state for name, each in found.items() if name != "bridge"} == {"not answering"}
    assert found["processor-0"].detail == f"no answer for {NO_ANSWER_S:g} s"


def test_a_role_that_answers_is_up_with_its_backlog_or_not_ready_with_its_reason(roles: Roles) -> None:
    roles.add_answering("processor-1", registry=registry_with(LAG.name, 42))
    roles.add_answering("recorder", ready=False)
    found = roles.states()
    assert (found["processor-1"].state, found["processor-1"].backlog) == ("up", 42)
    assert (found["recorder"].state, found["recorder"].detail) == ("not ready", "kafka: no broker")
    assert found["recorder"].backlog is None


def test_the_backlog_of_a_processor_that_hangs_comes_from_the_monitor(roles: Roles) -> None:
    roles.add_answering("processor-1", registry=registry_with(LAG.name, 2))
    roles.add_hanging("processor-2")
    roles.add_answering("monitor", registry=registry_with(KAFKA_GROUP_LAG.name, 9, group=PROCESSORS_GROUP))
    assert roles.states()["processor-2"].backlog == 7


def test_the_backlog_is_read_only_on_request(roles: Roles) -> None:
    roles.add_answering("processor-1", registry=registry_with(LAG.name, 42))
    (role,) = role_states(roles.layout, counted=False)
    assert (role.state, role.backlog) == ("up", None)


@pytest.mark.parametrize("content", ["<!doctype html>\n<p>another program</p>\n", "[]"])
def test_another_program_on_the_port_of_a_role_counts_as_no_answer(roles: Roles, tmp_path: Path, content: str) -> None:
    for name in ("metrics", "healthz"):
        (tmp_path / name).write_text(content)
    with web_server(tmp_path) as url:
        address = url.removeprefix("http://")
        roles.table.record("bridge", roles.me, metrics=address)
        assert roles.states()["bridge"].state == "not answering"
        assert RunTotals().scrape([address]).by("pointillist_frames_total", "outcome") == {}


def test_restarts_are_counted_in_the_table_of_roles(roles: Roles) -> None:
    for _ in range(3):
        roles.add_answering("bridge")
    assert roles.states()["bridge"].restarts == 2


def test_status_names_the_role_that_hangs(roles: Roles, capsys: pytest.CaptureFixture[str]) -> None:
    roles.add_hanging("processor-1")
    assert call("status", "--state", roles.layout.folder) == 1
    assert "processor-1 does not answer: no answer for 3 s\n" in capsys.readouterr().out


def test_the_terminal_reports_a_role_that_hangs_and_its_recovery(roles: Roles) -> None:
    roles.add_answering("processor-1")
    output = StringIO()
    line = SystemLine(roles.layout)
    table = LiveTable(Console(file=output, force_terminal=False))
    prometheus = type("Role", (), {"metrics": None, "listen": lambda self: None})()
    line.start()
    table.begin({"prometheus": prometheus}, 1.0, system=line)
    try:
        roles.add_hanging("processor-1")

        def is_printed(words: str) -> bool:
            table.tick()
            return words in output.getvalue()

        wait_until(lambda: is_printed("not well: processor-1 does not answer\n"), "the role that hangs")
        roles.add_answering("processor-1")
        wait_until(lambda: is_printed("all roles are up again"), "the role that is back")
    finally:
        line.close()


def test_the_sticker_scenario_uses_the_network_with_the_backdoor() -> None:
    settings = UpSettings(scenario=Path("sticker"))
    document = scenario_document(settings, None)
    assert parse_scenario(document).faults[0].kind == "sticker"
    assert bundle_folder(with_bundle_of(document, settings)).name == "scene-sticker"
    with_option = settings.model_copy(update={"bundle": Path("scene-plain")})
    assert bundle_folder(with_bundle_of(document, with_option)).name == "scene-plain"


def test_an_unknown_scenario_or_bundle_is_rejected_with_the_shipped_names() -> None:
    with pytest.raises(ConfigError, match=r"--scenario: expected a file or one of red-team, sticker, got nosuch\."):
        scenario_document(UpSettings(scenario=Path("nosuch")), None)
    with pytest.raises(BundleError, match=r"--bundle: expected .* one of cifar10, .*scene-sticker, got nosuch\."):
        bundle_folder(UpSettings(bundle=Path("nosuch")))


def test_a_role_whose_port_is_not_open_yet_is_starting(roles: Roles) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        roles.table.record("fleet", roles.me, metrics=f"127.0.0.1:{unused.getsockname()[1]}")
        fleet = roles.states()["fleet"]
    assert (fleet.state, fleet.detail) == ("not ready", "it starts")


def test_a_fleet_that_starts_or_has_ended_is_not_reported(roles: Roles) -> None:
    line = SystemLine(roles.layout)
    starts, ended = RoleState("fleet", "not ready", None, 1), RoleState("fleet-2", "gone", None, None)
    bridge = RoleState("bridge", "gone", None, None)
    assert line.unusual([starts, ended, bridge]) == [bridge]


def test_a_silent_fleet_is_reported_at_the_second_reading(roles: Roles) -> None:
    line = SystemLine(roles.layout)
    silent, well = RoleState("fleet", "not answering", None, 1), RoleState("fleet", "up", None, 1)
    other, processor = replace(silent, name="fleet-2"), replace(silent, name="processor-1")
    assert [line.unusual([silent, processor]) for _ in range(2)] == [[processor], [silent, processor]]
    assert line.unusual([well]) == [well]
    assert line.unusual([silent, other]) == []
    assert line.unusual([other]) == [other]
