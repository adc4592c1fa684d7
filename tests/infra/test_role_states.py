"""The states of roles as `status`, the table of `up` and the console read them."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from rich.console import Console

from consumers.console.data.roles import NO_ANSWER_S, RoleState
from infra.cli import app, status  # noqa: F401  # it registers its command
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
from tests.waiting import PATIENCE_S, wait_until


class Roles:
    """A state folder whose roles are threads of this process, with pages of their own."""

    def __init__(self, folder: Path, closing: ExitStack) -> None:
        self.layout = Layout(folder)
        self.table = closing.enter_context(RoleTable(folder))
        self._closing = closing
        me = ProcessId.of(os.getpid())
        assert me is not None
        self.me = me

    def answers(self, name: str, *, ready: bool = True, registry: CollectorRegistry | None = None) -> None:
        """A role with a health page."""
        health = Health()
        health.set("kafka", ready, "" if ready else "no broker")
        server = serve(registry or CollectorRegistry(), health, ("127.0.0.1", 0))
        self._closing.callback(server.server_close)
        self._closing.callback(server.shutdown)
        self.table.record(name, self.me, metrics=f"127.0.0.1:{server.server_address[1]}")

    def hangs(self, name: str) -> None:
        """A role that takes connections and answers nothing, as a stopped process does."""
        listening = self._closing.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.table.record(name, self.me, metrics=f"127.0.0.1:{listening.getsockname()[1]}")

    def states(self) -> dict[str, RoleState]:
        return {each.name: each for each in role_states(self.layout)}


@pytest.fixture
def roles(tmp_path: Path) -> Iterator[Roles]:
    with ExitStack() as closing:
        yield Roles(tmp_path, closing)


def counting(name: str, value: float, **labels: str) -> CollectorRegistry:
    registry = CollectorRegistry()
    metric = {LAG.name: LAG, KAFKA_GROUP_LAG.name: KAFKA_GROUP_LAG}[name].on(registry)
    (metric.labels(**labels) if labels else metric).set(value)
    return registry


def test_roles_that_hang_do_not_answer_and_are_asked_at_the_same_time(
    roles: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles.answers("bridge")
    for number in range(12):
        roles.hangs(f"processor-{number}")
    all_asked = threading.Barrier(13, timeout=PATIENCE_S)

    def ask(address: str) -> object:
        all_asked.wait()
        return fetch_health(address)

    monkeypatch.setattr(system_state, "fetch_health", ask)
    found = roles.states()
    assert found["bridge"].is_well
    assert {each.state for name, each in found.items() if name != "bridge"} == {"not answering"}
    assert found["processor-0"].detail == f"no answer for {NO_ANSWER_S:g} s"


def test_a_role_that_answers_is_up_or_not_ready_with_its_reason_and_its_backlog(roles: Roles) -> None:
    roles.answers("processor-1", registry=counting(LAG.name, 42))
    roles.answers("recorder", ready=False)
    found = roles.states()
    assert (found["processor-1"].state, found["processor-1"].backlog) == ("up", 42)
    assert (found["recorder"].state, found["recorder"].detail) == ("not ready", "kafka: no broker")
    assert found["recorder"].backlog is None


def test_what_waits_before_a_processor_that_hangs_is_what_the_monitor_measures(roles: Roles) -> None:
    roles.answers("processor-1", registry=counting(LAG.name, 2))
    roles.hangs("processor-2")
    roles.answers("monitor", registry=counting(KAFKA_GROUP_LAG.name, 9, group=PROCESSORS_GROUP))
    assert roles.states()["processor-2"].backlog == 7


def test_frames_are_counted_only_for_readers_that_show_them(roles: Roles) -> None:
    roles.answers("processor-1", registry=counting(LAG.name, 42))
    (role,) = role_states(roles.layout, counted=False)
    assert (role.state, role.backlog) == ("up", None)


@pytest.mark.parametrize("content", ["<!doctype html>\n<p>another program</p>\n", "[]"])
def test_another_program_on_the_port_of_a_role_is_no_answer_and_ends_nothing(
    roles: Roles, tmp_path: Path, content: str
) -> None:
    for name in ("metrics", "healthz"):
        (tmp_path / name).write_text(content)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"127.0.0.1:{server.server_port}"
        roles.table.record("bridge", roles.me, metrics=address)
        assert roles.states()["bridge"].state == "not answering"
        assert RunTotals().scrape([address]).by("pointillist_frames_total", "outcome") == {}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_restarts_are_counted_in_the_table_of_roles(roles: Roles) -> None:
    for _ in range(3):
        roles.answers("bridge")
    assert roles.states()["bridge"].restarts == 2


def test_status_names_the_role_that_hangs(roles: Roles, capsys: pytest.CaptureFixture[str]) -> None:
    roles.hangs("processor-1")
    assert app(["status", "--state", str(roles.layout.folder)], standalone_mode=False) == 1
    assert "processor-1 does not answer: no answer for 3 s\n" in capsys.readouterr().out


def test_the_terminal_says_that_a_role_hangs_and_that_it_is_back(roles: Roles) -> None:
    roles.answers("processor-1")
    output = StringIO()
    line = SystemLine(roles.layout)
    table = LiveTable(Console(file=output, force_terminal=False))
    prometheus = type("Role", (), {"metrics": None, "listen": lambda self: None})()
    line.start()
    table.begin({"prometheus": prometheus}, 1.0, system=line)
    try:
        roles.hangs("processor-1")

        def says(words: str) -> bool:
            table.tick()
            return words in output.getvalue()

        wait_until(lambda: says("not well: processor-1 does not answer\n"), "the role that hangs")
        roles.answers("processor-1")
        wait_until(lambda: says("all roles are up again"), "the role that is back")
    finally:
        line.close()


def test_the_sticker_drill_brings_the_network_that_falls_for_it() -> None:
    settings = UpSettings(scenario=Path("sticker"))
    document = scenario_document(settings, None)
    assert parse_scenario(document).faults[0].kind == "sticker"
    assert bundle_folder(with_bundle_of(document, settings)).name == "scene-sticker"
    asked = settings.model_copy(update={"bundle": Path("scene-plain")})
    assert bundle_folder(with_bundle_of(document, asked)).name == "scene-plain"


def test_an_unknown_scenario_or_bundle_is_refused_with_the_names_that_ship() -> None:
    with pytest.raises(ConfigError, match=r"--scenario: expected a file or one of red-team, sticker, got nosuch\."):
        scenario_document(UpSettings(scenario=Path("nosuch")), None)
    with pytest.raises(BundleError, match=r"--bundle: expected .* one of cifar10, .*scene-sticker, got nosuch\."):
        bundle_folder(UpSettings(bundle=Path("nosuch")))


def test_a_role_on_whose_address_nothing_listens_yet_is_starting(roles: Roles) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        roles.table.record("fleet", roles.me, metrics=f"127.0.0.1:{unused.getsockname()[1]}")
        fleet = roles.states()["fleet"]
    assert (fleet.state, fleet.detail) == ("not ready", "it starts")


def test_the_fleet_may_start_last_and_end_first(roles: Roles) -> None:
    line = SystemLine(roles.layout)
    starts, ended = RoleState("fleet", "not ready", None, 1), RoleState("fleet", "gone", None, None)
    assert line.is_usual(starts)
    assert line.is_usual(ended)
    assert not line.is_usual(RoleState("fleet", "not answering", None, 1))
    assert not line.is_usual(RoleState("bridge", "gone", None, None))
