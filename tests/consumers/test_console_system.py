"""The status of the system on every page, its roles and firing rules, with and without Prometheus."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Match

from consumers.console.access.sight import ALL, Sight
from consumers.console.data import system_watch
from consumers.console.data.prometheus import read_roles
from consumers.console.data.roles import RoleState, unwell
from consumers.console.data.rules import MOST_FIRING, FiringRule, Rules, read_rules, rules_of
from consumers.console.data.system_watch import Pill
from consumers.console.pages.fleet import header_changes
from consumers.console.pages.system import changes_of_system
from consumers.console.web import make_app
from infra.grafana.shipped import FOLDER
from infra.local.prometheus import RULES
from infra.prometheus.runbooks import PAGE, SOURCE
from schemas.errors import BrokerError, StateError
from tests.consumers.console_rig import ConsoleRig, poll, raise_alert
from tests.consumers.prometheus_stand_in import rules_json, running_prometheus
from tests.consumers.recorder_rig import CAMERA, Rig, verdict
from tests.waiting import until

WELL = RoleState("recorder", "up", None, 7, backlog=3)
STOPPED = RoleState("processor-1", "not answering", None, 8, "no answer for 3 s", restarts=2)
ALERT_JSON: dict[str, Any] = {
    "state": "firing",
    "activeAt": "2026-11-22T10:33:10.123456789Z",
    "labels": {"severity": "critical", "role": "processor-1"},
    "annotations": {"summary": "processor-1 does not <b>answer</b>", "description": "Read the log."},
}


@pytest.fixture
def system() -> list[RoleState]:
    """Return the roles of the console, which a test may change."""
    return [WELL, RoleState("kafka", "up", None, 1)]


@pytest.fixture
def rig(tmp_path: Path, system: list[RoleState]) -> Iterator[ConsoleRig]:
    console = ConsoleRig(tmp_path, read_roles=lambda: list(system))
    console.context.runbooks = PAGE
    yield console
    console.close()


def header(rig: ConsoleRig) -> tuple[str, str]:
    """Return level and text of the status on the fleet's page."""
    found = re.search(r'class="pill (\w+)"><a href="[^"]*">([^<]*)<', rig.browser().get("/").text)
    assert found
    return found[1], found[2]


def test_the_header_of_every_page_shows_the_status(rig: ConsoleRig) -> None:
    rig.context.watch.poll_roles()
    for path in ("/", "/alerts", "/rules", "/runbooks", "/system", "/models", "/dead-letters"):
        assert '<p id="pill" role="status" class="pill good"><a href="/system">all well</a></p>' in (
            rig.browser().get(path).text
        ), path


def test_an_unresponsive_role_is_shown_in_the_header_and_first_on_the_system_page(
    rig: ConsoleRig, system: list[RoleState]
) -> None:
    system.append(STOPPED)
    rig.context.watch.poll_roles()
    assert header(rig) == ("bad", "processor-1 does not answer")
    page = rig.browser().get("/system").text
    table = page[page.index('id="roles"') : page.index('id="firing"')]
    assert re.findall(r'<th scope="row">([\w-]+)', table) == ["processor-1", "recorder", "kafka"]
    assert "no answer for 3 s" in table
    assert page.index('id="roles"') < page.index("The console's connections")


def test_the_api_returns_status_roles_and_rules(rig: ConsoleRig, system: list[RoleState]) -> None:
    system[:] = [STOPPED]
    rig.context.watch.poll_roles()
    rig.context.watch.rules = rules_of(rules_json(ALERT_JSON))
    found = rig.browser().get("/api/v1/system").json()
    assert found["status"] == {"text": "processor-1 does not answer · 1 rule fires", "level": "bad"}
    assert found["roles"] == [
        {"name": "processor-1", "state": "not answering", "detail": "no answer for 3 s", "backlog": None, "restarts": 2}
    ]
    assert [each["name"] for each in found["rules"]] == ["PointillistRoleDown"]


def test_several_roles_are_counted_and_every_state_is_described_in_words() -> None:
    states = [RoleState("bridge", "not ready", None, 1), RoleState("recorder", "gone", None, None), STOPPED, WELL]
    assert unwell(states) == "bridge is not ready, 2 more roles not up"
    assert [each.sentence for each in states[1:3]] == ["recorder has ended", "processor-1 does not answer"]
    assert unwell([WELL]) == ""


async def test_a_changed_role_is_pushed_to_open_pages(rig: ConsoleRig, system: list[RoleState]) -> None:
    running = asyncio.create_task(rig.context.watch.run())
    try:
        await until(lambda: bool(rig.context.watch.roles))
        changed, head = changes_of_system(rig.context), header_changes(rig.context, ALL)
        assert "all well" in changed()
        assert "all well" in head()
        fleet_changed = rig.context.fleet.changed
        system.append(STOPPED)
        await asyncio.wait_for(fleet_changed.wait(), 60)
        assert "no answer for 3 s" in changed()
        assert "processor-1 does not answer" in head()
        assert (changed(), head()) == ("", "")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_unreadable_roles_are_shown_with_the_reason(rig: ConsoleRig) -> None:
    def fail() -> list[RoleState]:
        raise StateError("state: expected a running system, got none.")

    rig.context.watch = system_watch.SystemWatch(rig.context.fleet, fail, None)
    rig.context.watch.poll_roles()
    assert header(rig) == ("good", "no alert")
    assert "expected a running system" in rig.browser().get("/system").text


def test_the_conservation_sum_is_replaced_under_its_heading(rig: ConsoleRig) -> None:
    browser = rig.browser()
    heading, _, replaced = browser.get("/system").text.partition('hx-get="/system/conservation"')
    assert "Every frame accounted for" in heading
    assert replaced.partition(">")[2].strip().startswith(browser.get("/system/conservation").text.strip())


def test_firing_rules_are_listed_with_links_to_their_runbooks(rig: ConsoleRig) -> None:
    quiet = {**ALERT_JSON, "state": "pending"}
    with running_prometheus(alerts=(ALERT_JSON, quiet)) as server:
        rig.context.watch.rules = read_rules(server.url)
    rig.context.watch.no_rules = ""
    assert header(rig) == ("bad", "1 rule fires")
    for path in ("/rules", "/system"):
        page = rig.browser().get(path).text
        assert "processor-1 does not &lt;b&gt;answer&lt;/b&gt;" in page
        assert page.count('href="/runbooks#pointillistroledown"') == 1
    assert 'href="/runbooks#pointillistdiskfull"' in rig.browser().get("/rules").text
    assert rig.browser().get("/rules/graph?g0.expr=up&g0.tab=1").headers["location"] == "/rules"
    runbooks = rig.browser().get("/runbooks").text
    assert all(f'<h3 id="{name}">' in runbooks for name in ("pointillistroledown", "pointillistdiskfull"))


def test_a_rule_that_fires_for_several_cameras_counts_once(rig: ConsoleRig) -> None:
    each = FiringRule("PointillistCameraSilent", "warning", "lab/0", "It is silent", "", 0)
    firing = tuple(replace(each, subject=f"lab/{number}") for number in range(3))
    rig.context.watch.rules, rig.context.watch.no_rules = Rules(firing, ("PointillistDiskFull",)), ""
    assert "1 rule fires, 1 do not." in rig.browser().get("/rules").text


def test_the_page_of_rules_counts_them_once(rig: ConsoleRig) -> None:
    rig.context.watch.rules = Rules(quiet=("PointillistDiskFull", "PointillistRoleDown"))
    rig.context.watch.no_rules = ""
    page = rig.browser().get("/rules").text
    assert "No rules fire, 2 do not." in page
    assert "None of the 2 rules fires" not in page


def test_without_prometheus_the_page_of_rules_shows_the_reason(rig: ConsoleRig) -> None:
    for path in ("/rules", "/system"):
        assert rig.browser().get(path).text.count("start the console with --prometheus") == 1


def test_without_a_state_folder_the_roles_come_from_prometheus(tmp_path: Path) -> None:
    with running_prometheus(up="0") as server:
        url = server.url
        assert read_roles(url) == [
            RoleState("recorder", "not answering", None, None, "no response to Prometheus", backlog=0)
        ]
        rig = ConsoleRig(tmp_path, prometheus=url)
        try:
            rig.context.watch.poll_roles()
            assert header(rig) == ("bad", "recorder does not answer")
        finally:
            rig.close()
    with pytest.raises(BrokerError, match="Prometheus: expected a response, got"):
        read_roles(url)


@pytest.mark.parametrize("answer", [{}, [], None, {"data": {"groups": [{"rules": [{"type": "alerting"}]}]}}])
def test_an_answer_without_a_list_of_rules_is_rejected(answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.console.data.rules.fetch", lambda _: answer)
    with pytest.raises(BrokerError, match="expected a list of rules"):
        read_rules("http://127.0.0.1:1")


def test_a_too_deeply_nested_answer_is_reported_without_rules(tmp_path: Path) -> None:
    with running_prometheus("deep") as server:
        rig = ConsoleRig(tmp_path, prometheus=server.url)
        try:
            rig.context.watch.poll_rules()
            assert rig.context.watch.no_rules.startswith("Prometheus: expected a response, got ")
        finally:
            rig.close()


def test_the_worst_and_newest_rule_is_first_and_a_rule_counts_once() -> None:
    later = {**ALERT_JSON, "activeAt": "2026-11-22T10:40:00Z", "labels": {"severity": "critical", "role": "bridge"}}
    mild = {**ALERT_JSON, "labels": {"severity": "warning", "camera_id": "a/b"}}
    found = rules_of(rules_json(mild, ALERT_JSON, later))
    assert [each.subject for each in found.firing] == ["bridge", "processor-1", "a/b"]
    assert (found.names, found.quiet) == (("PointillistRoleDown",), ("PointillistDiskFull",))


def test_rules_of_other_sites_do_not_push_a_sites_rule_out_of_the_limit(rig: ConsoleRig) -> None:
    others = [
        {**ALERT_JSON, "labels": {"severity": "critical", "camera_id": f"south/cam-{n}"}} for n in range(MOST_FIRING)
    ]
    ours = {**ALERT_JSON, "labels": {"severity": "warning", "camera_id": "north/gate"}}
    watch, north = rig.context.watch, Sight(frozenset({"north"}))
    watch.rules = rules_of(rules_json(*others, ours))
    assert [each.subject for each in watch.firing_rules(north).firing] == ["north/gate"]
    assert len(watch.firing_rules(ALL).firing) == MOST_FIRING
    assert watch.document()["rules"] is watch.firing_rules(ALL)
    watch.rules = rules_of(rules_json(*others))
    found = watch.firing_rules(north)
    assert (found.firing, found.quiet) == ((), ("PointillistDiskFull", "PointillistRoleDown"))


def test_the_header_shows_alerts_and_rules_and_acknowledged_ones_in_amber(console: ConsoleRig, recorder: Rig) -> None:
    console.context.watch.rules = rules_of(
        rules_json({**ALERT_JSON, "labels": {"severity": "critical", "camera_id": CAMERA}})
    )
    console.show([verdict(0)])
    raise_alert(recorder)
    poll(console)
    assert header(console) == ("bad", "1 alert · 1 rule fires")
    console.context.reviews |= {"ab" * 16: console.context.store.review(["ab" * 16], "acknowledged", "duty")}
    poll(console)
    assert header(console) == ("warn", "1 alert acknowledged · 1 rule fires")
    words = "1 alert acknowledged · 1 rule fires"
    assert console.context.watch.pill() == Pill(words, "warn", "/alerts?state=acknowledged")
    console.context.watch.rules = rules_of(rules_json(ALERT_JSON))
    assert header(console) == ("bad", "1 alert acknowledged · 1 rule fires"), "a critical rule on something else"


_BRANCHES = re.compile(r"\{\{ (?:if ne [^}]*|end) \}\}")
"""Conditions of a template around optional parts."""
_CONSOLE_PATHS = {
    f"{file.name}: {path}": path
    for file, pattern in [
        *((file, r'externalLabels\.console }}(/[^"\n]*)') for file in RULES.glob("*.yml")),
        (SOURCE, r"`(/[a-zA-Z][^`]*)`"),
    ]
    for path in re.findall(pattern, _BRANCHES.sub("", file.read_text()))
    if path != "/healthz"
} | {
    f"{file.name}: {path}": path
    for file in FOLDER.glob("*.json")
    for path in re.findall(r'"\$\{console\}(/[^"]*)"', file.read_text())
}


def test_rules_runbooks_and_dashboards_link_to_the_console() -> None:
    assert {name.partition(":")[0] for name in _CONSOLE_PATHS} >= {"pointillist.yml", "runbooks.md", "fleet.json"}


@pytest.mark.parametrize("name", _CONSOLE_PATHS)
def test_every_link_of_rules_runbooks_and_dashboards_to_the_console_is_a_page(rig: ConsoleRig, name: str) -> None:
    path = re.sub(
        r"\{\{ \$labels\.camera_id \}\}|\$\{__field\.labels\.camera_id\}|SITE/CAMERA", CAMERA, _CONSOLE_PATHS[name]
    )
    assert not re.search(r"[${}]", path), path
    scope = {"type": "http", "method": "GET", "path": path.partition("?")[0], "root_path": ""}
    assert any(route.matches(scope)[0] is Match.FULL for route in make_app(rig.context).routes), path


async def test_roles_are_read_seldom_while_no_page_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_watch, "ROLES_S", 0.001)
    monkeypatch.setattr(system_watch, "_UNSEEN_S", 3_600.0)
    reads: list[RoleState] = []

    def read() -> list[RoleState]:
        reads.append(WELL)
        return [WELL]

    rig = ConsoleRig(tmp_path, read_roles=read)
    polling = asyncio.create_task(rig.context.watch.run())
    await until(lambda: len(reads) == 1)
    await asyncio.sleep(0.2)
    assert len(reads) == 1
    rig.context.watch.header()
    await until(lambda: len(reads) > 20)
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)
    rig.close()
