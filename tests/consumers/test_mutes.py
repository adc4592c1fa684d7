"""Mutes: no counts and no notifications for a time, on the pages, by the API and on the command line."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from httpx2 import Response
from sqlalchemy import Engine, delete, select, update

from benchmarks.harness.postgresql import USER, PostgreSQL
from consumers.console.access.sight import ALL
from consumers.console.data.rules import FiringRule, Rules
from consumers.database.changes import change_recorded
from consumers.database.engine import open_engine
from consumers.database.mutes import Mute, end_mute, mute_of, new_mute, read_mutes, save_mute
from consumers.database.tables import alerts, mutes
from infra.cli.mute import mute as command
from infra.monitor.alert_notifier import REPEAT_S
from infra.state_folder import Layout
from schemas.errors import BrokerError, ConfigError, StateError
from schemas.keys.keys import KeyRing
from tests.consumers.alertmanager_stand_in import AlertmanagerStandIn, MakeNotifier
from tests.consumers.console_rig import ALERT, OTHER, OWNER, ConsoleRig, poll, raise_alert
from tests.consumers.recorder_rig import CAMERA, RECORDER_KEYS, Rig, verdict
from tests.waiting import PATIENCE_S

NOW_MS = 1_800_000_000_000


def expire(recorder: Rig) -> None:
    with recorder.engine.begin() as connection:
        connection.execute(update(mutes).values(until_ms=time.time_ns() // 10**6))


@pytest.mark.parametrize("length", ["", "1", "0h", "1w", "-1h", "31d", "1.5h", "99999m", "1h\n"])
def test_an_invalid_length_of_a_mute_is_rejected(length: str) -> None:
    with pytest.raises(ConfigError, match="expected a length such as 30m"):
        new_mute(CAMERA, length, "repairs", "anna", NOW_MS)


def test_a_mute_needs_a_reason_and_a_subject() -> None:
    assert new_mute(CAMERA, "90m", " repairs ", "anna", NOW_MS) == Mute(
        CAMERA, NOW_MS + 5_400_000, "repairs", "anna", NOW_MS
    )
    with pytest.raises(ConfigError, match="expected a reason"):
        new_mute(CAMERA, "1h", "  ", "anna", NOW_MS)
    with pytest.raises(ConfigError, match="expected site/camera"):
        new_mute("../door", "1h", "repairs", "anna", NOW_MS)


def test_a_later_mute_replaces_an_earlier_one_and_expires(recorder: Rig) -> None:
    with recorder.engine.begin() as connection:
        save_mute(connection, new_mute(CAMERA, "1d", "repairs", "anna", NOW_MS))
        save_mute(connection, new_mute(CAMERA, "1h", "paint", "bob", NOW_MS))
        assert {each.reason for each in read_mutes(connection, NOW_MS + 3_599_999).values()} == {"paint"}
        assert read_mutes(connection, NOW_MS + 3_600_000) == {}
        save_mute(connection, new_mute("lab/gate", "1h", "paint", "bob", NOW_MS + 3_600_000))
        assert connection.scalars(select(mutes.c.subject)).all() == ["lab/gate"]
        with pytest.raises(ConfigError, match="expected the id of a stored alert"):
            save_mute(connection, new_mute(ALERT, "1h", "paint", "bob", NOW_MS))


def test_the_mutes_of_a_site_and_of_its_alerts_leave_room_for_another_site(
    recorder: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.database.mutes.MOST_MUTES", 2)
    for alert_id, camera in ((ALERT, "north/door"), (OTHER, "south/door")):
        raise_alert(recorder, alert_id, camera=camera)
    with recorder.engine.begin() as connection:
        for subject in ("north/door", ALERT, "south/door", OTHER, ALERT):
            save_mute(connection, new_mute(subject, "1h", "repairs", "anna", NOW_MS))
        for site in ("north", "south"):
            with pytest.raises(ConfigError, match="mute: expected at most 2 at a site, got more"):
                save_mute(connection, new_mute(f"{site}/gate", "1h", "repairs", "anna", NOW_MS))
        assert read_mutes(connection, NOW_MS).keys() == {"north/door", "south/door", ALERT, OTHER}


def test_the_mute_that_ends_last_counts_for_an_episode() -> None:
    of_camera, of_alert = (new_mute(each, f"{h}h", "repairs", "a", NOW_MS) for each, h in ((CAMERA, 1), (ALERT, 2)))
    found = {each.subject: each for each in (of_camera, of_alert)}
    assert mute_of(found, CAMERA, [OTHER, ALERT]) == of_alert
    assert mute_of(found, CAMERA, [OTHER]) == of_camera
    assert mute_of(found, "lab/gate", [OTHER]) is None


def test_a_missing_database_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="is missing"):
        change_recorded(f"sqlite:///{tmp_path}/none.sqlite", lambda each: read_mutes(each, 0))
    assert not (tmp_path / "none.sqlite").exists()


def test_a_muted_alert_is_not_counted_until_its_mute_ends(console: ConsoleRig, recorder: Rig) -> None:
    console.show([verdict(0)])
    raise_alert(recorder)
    browser = console.browser()
    fields = {"csrf": console.csrf(), "mute": "8h", "reason": "a <b>painter</b> works there"}
    assert browser.post(f"/alerts/{ALERT}", data=fields).headers["location"] == "/alerts?state=open"
    poll(console)
    page = browser.get("/alerts").text
    assert 'class="episode open muted"' in page
    assert f"by {OWNER}: a &lt;b&gt;painter&lt;/b&gt; works there" in page
    assert "Unmute" in page
    fleet = browser.get("/").text
    assert 'class="pill good"><a href="/system">no alert · 1 muted</a>' in fleet
    assert 'class="card online good' in fleet
    assert "online, muted: a &lt;b&gt;painter&lt;/b&gt; works there" in fleet
    assert console.context.fleet.alerts() == (0, 0)
    assert [(each.what, each.detail) for each in console.context.store.newest_operations(ALERT)] == [
        ("mute", "8h: a <b>painter</b> works there")
    ]
    raise_alert(recorder, OTHER)  # the camera restarts in front of the same sticker
    poll(console)
    assert console.context.fleet.alerts() == (0, 0)
    expire(recorder)
    poll(console)
    assert console.context.fleet.alerts() == (1, 0)
    assert 'class="pill bad"><a href="/alerts">1 alert</a>' in browser.get("/").text


@pytest.mark.parametrize("shown", ["/alerts?state=open&camera=lab%2Fdoor", f"/camera/{CAMERA}"])
def test_the_end_of_a_camera_s_mute_returns_to_the_page_of_its_button(
    console: ConsoleRig, recorder: Rig, shown: str
) -> None:
    console.show([verdict(0)])
    raise_alert(recorder)
    browser, path = console.browser(), f"/camera/{CAMERA}/mute"
    browser.post(path, data={"csrf": console.csrf(), "mute": "1h", "reason": "repairs"})
    poll(console)
    (form,) = re.findall(rf'<form method="post" action="{path}">.*?</form>', browser.get(shown).text, re.DOTALL)
    assert "Unmute" in form
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form))
    assert browser.post(path, data=hidden | {"mute": "end"}).headers["location"] == shown


def test_a_muted_alert_is_not_counted_next_to_an_acknowledged_one(console: ConsoleRig, recorder: Rig) -> None:
    console.show([verdict(0)])
    raise_alert(recorder, ago_s=3_600)
    browser, csrf = console.browser(), {"csrf": console.csrf()}
    browser.post(f"/alerts/{ALERT}", data=csrf | {"state": "acknowledged"})
    raise_alert(recorder, OTHER)
    browser.post(f"/alerts/{OTHER}", data=csrf | {"mute": "8h", "reason": "repairs"})
    poll(console)
    assert console.context.fleet.alerts() == (0, 1)
    card = console.context.fleet.card(CAMERA)
    assert card is not None
    assert (card.alert, card.acknowledged, card.muted_until_ms) == (ALERT, True, 0)
    expire(recorder)
    poll(console)
    assert console.context.fleet.alerts() == (1, 0)


@pytest.mark.parametrize("state", ["open", "acknowledged", "closed"])
@pytest.mark.parametrize("muted", [True, False])
def test_the_page_of_a_camera_links_to_its_alert_unless_the_alert_is_closed(
    console: ConsoleRig, recorder: Rig, state: str, muted: bool
) -> None:
    console.show([verdict(0)])
    raise_alert(recorder)
    browser, csrf = console.browser(), {"csrf": console.csrf()}
    if state != "open":
        browser.post(f"/alerts/{ALERT}", data=csrf | {"state": state})
    if muted:
        browser.post(f"/alerts/{ALERT}", data=csrf | {"mute": "8h", "reason": "repairs"})
    poll(console)
    link = re.search(r'<a href="([^"]*)">Open the alert</a>', browser.get(f"/camera/{CAMERA}").text)
    assert (link is None) == (state == "closed")
    if link is not None:
        assert f'id="alert-{ALERT}"' in browser.get(unescape(link[1])).text


def test_rules_of_a_muted_camera_are_not_counted_until_the_mute_is_ended(console: ConsoleRig, recorder: Rig) -> None:
    console.show([verdict(0)])
    rule = FiringRule("PointillistCameraSilent", "critical", CAMERA, "it is silent", "", NOW_MS)
    console.context.watch.rules = Rules((rule,))
    browser, path = console.browser(), f"/camera/{CAMERA}/mute"
    assert "1 rule fires" in browser.get("/").text
    assert browser.post(path, data={"csrf": console.csrf(), "mute": "1h", "reason": ""}).status_code == 400
    assert browser.post(path, data={"csrf": console.csrf(), "mute": "1h", "reason": "repairs"}).status_code == 303
    poll(console)
    page = browser.get(f"/camera/{CAMERA}").text
    assert "Muted <time" in page
    assert ": repairs." in page
    assert "no alert · 1 muted" in page
    assert "1 rule fires" not in page
    browser.post(path, data={"csrf": console.csrf(), "mute": "end"})
    assert browser.post(path, data={"csrf": console.csrf(), "mute": "end"}).status_code == 400, "nothing is muted"
    poll(console)
    assert "1 rule fires" in browser.get("/").text
    assert [each.detail for each in console.context.store.newest_operations(CAMERA)] == ["ended", "1h: repairs"]


def test_a_camera_with_a_muted_alert_can_be_muted_itself(console: ConsoleRig, recorder: Rig) -> None:
    console.show([verdict(0)])
    raise_alert(recorder)
    browser, path = console.browser(), f"/camera/{CAMERA}"
    fields = {"csrf": console.csrf(), "mute": "8h", "reason": "repairs"}
    browser.post(f"/alerts/{ALERT}", data=fields)
    poll(console)
    page = browser.get(path).text
    assert "Muted <time" in page
    assert "Unmute" not in page, "the camera has no mute to end"
    assert browser.post(f"{path}/mute", data=fields).status_code == 303
    poll(console)
    assert "Unmute" in browser.get(path).text


def test_alerts_are_muted_together_and_unmuted_by_the_api(console: ConsoleRig, recorder: Rig) -> None:
    raise_alert(recorder)
    raise_alert(recorder, OTHER, camera="lab/gate")
    browser = console.browser()
    fields = {"csrf": console.csrf(), ALERT: "on", OTHER: "on", "mute": "1h", "reason": "repairs"}
    assert browser.post("/alerts", data=fields).status_code == 303
    assert browser.get("/alerts").text.count('class="episode open muted"') == 2
    headers = {"x-csrf-token": console.csrf()}
    assert browser.post(f"/api/v1/alerts/{ALERT}/mute", json={"for": "end"}, headers=headers).status_code == 200
    assert browser.post(f"/api/v1/cameras/{CAMERA}/mute", json={"for": 1}, headers=headers).status_code == 400
    assert browser.get("/alerts").text.count('class="episode open muted"') == 1


def test_alerts_are_muted_together_or_not_at_all(
    console: ConsoleRig, recorder: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_alert(recorder)
    raise_alert(recorder, OTHER, camera="lab/gate")
    browser = console.browser()
    fields = {"csrf": console.csrf(), ALERT: "on", OTHER: "on", "mute": "1h", "reason": "repairs"}
    with monkeypatch.context() as patch:
        patch.setattr("consumers.database.mutes.MOST_MUTES", 1)
        assert browser.post("/alerts", data=fields).status_code == 400
    assert browser.get("/alerts").text.count('class="episode open muted"') == 0
    assert not console.context.store.newest_operations(ALERT)
    assert browser.post(f"/alerts/{ALERT}", data=fields).status_code == 303
    ended = browser.post("/alerts", data=fields | {"mute": "end"})  # of the other there is none
    assert ended.status_code == 400
    assert browser.get("/alerts").text.count('class="episode open muted"') == 1


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        (f"cameras/{CAMERA}/mute", {"for": "1h", "reason": "repairs"}),
        ("sighting-rules", {"cameras": "lab/*", "wanted": "stop"}),
        ("sighting-rules/remove", {"cameras": "lab/*", "wanted": "stop"}),
    ],
)
def test_a_change_that_waits_for_the_recorders_database_delays_no_login(
    console: ConsoleRig, recorder: Rig, monkeypatch: pytest.MonkeyPatch, path: str, sent: dict[str, str]
) -> None:
    console.show([verdict(0)])
    opens, answers = threading.Event(), threading.Event()

    def slow(url: str, *, writes: bool) -> Engine:
        opens.set()
        answers.wait(PATIENCE_S)
        return open_engine(url, writes=writes)

    monkeypatch.setattr("consumers.database.changes.open_engine", slow)
    browser, visitor = console.browser(), console.visitor()
    token = (console.folder / "owner.token").read_text().strip()
    with ThreadPoolExecutor(2) as visitors:
        try:
            change = visitors.submit(browser.post, f"/api/v1/{path}", json=sent)
            assert opens.wait(PATIENCE_S)
            login = visitors.submit(visitor.get, "/login/link", params={"token": token})
            assert login.result(PATIENCE_S / 4).status_code == 200
        finally:
            answers.set()
        assert change.result(PATIENCE_S).status_code == (400 if path.endswith("remove") else 200)


def test_the_notifier_keeps_a_silence_for_each_mute(
    console: ConsoleRig, recorder: Rig, manager: AlertmanagerStandIn, make_notifier: MakeNotifier
) -> None:
    now_s = 0.0
    theirs = {"id": "theirs", "createdBy": "anna", "status": {"state": "active"}, "matchers": []}
    manager.silences["theirs"] = theirs
    notifier = make_notifier(recorder.url, clock_s=lambda: now_s)
    raise_alert(recorder)
    for subject in (CAMERA, ALERT):
        mute = new_mute(subject, "1h", "repairs", "anna", time.time_ns() // 10**6)
        change_recorded(recorder.url, lambda each, mute=mute: save_mute(each, mute))  # type: ignore[misc]  # bound at once
    notifier.notify()
    of_camera, of_alert = sorted(manager.active()[1:], key=lambda each: "|" in str(each) or ALERT in str(each))
    assert of_camera["matchers"] == [{"name": "camera_id", "value": CAMERA, "isRegex": False, "isEqual": True}]
    assert of_alert["matchers"] == [{"name": "alert_id", "value": ALERT, "isRegex": True, "isEqual": True}]
    assert of_alert["comment"] == "repairs (muted by anna)"
    requests = manager.requests
    notifier.notify()  # nothing has changed
    assert manager.requests == requests
    raise_alert(recorder, OTHER)  # an alert of the same episode
    notifier.notify()
    assert {each["matchers"][0]["value"] for each in manager.active()[1:]} == {CAMERA, f"{ALERT}|{OTHER}"}
    manager.silences = {"theirs": theirs}  # Alertmanager has lost the silences
    now_s += REPEAT_S
    notifier.notify()
    assert len(manager.active()) == 3
    expire(recorder)
    notifier.notify()
    assert manager.active() == [theirs]


def test_a_mute_silences_its_whole_episode_after_a_new_database_has_replaced_a_damaged_one(
    console: ConsoleRig, recorder: Rig, manager: AlertmanagerStandIn, make_notifier: MakeNotifier
) -> None:
    notifier = make_notifier(recorder.url, reviews=console.context.settings.store)
    raise_alert(recorder)
    raise_alert(recorder, OTHER)
    mute = new_mute(ALERT, "1h", "repairs", "anna", time.time_ns() // 10**6)
    change_recorded(recorder.url, lambda each: save_mute(each, mute))
    notifier.notify()
    before = manager.active()
    assert {each["matchers"][0]["value"] for each in before} == {f"{ALERT}|{OTHER}"}
    with recorder.engine.begin() as connection:  # the new database has the mutes and no alert
        connection.execute(delete(alerts))
    notifier.notify()
    assert manager.active() == before


def test_a_mute_is_in_force_while_the_database_is_replaced(
    console: ConsoleRig,
    recorder: Rig,
    monkeypatch: pytest.MonkeyPatch,
    manager: AlertmanagerStandIn,
    make_notifier: MakeNotifier,
) -> None:
    notifier = make_notifier(recorder.url, reviews=console.context.settings.store)
    raise_alert(recorder)
    mute = new_mute(CAMERA, "1h", "repairs", "anna", time.time_ns() // 10**6)
    change_recorded(recorder.url, lambda each: save_mute(each, mute))
    notifier.notify()
    before = manager.active()
    assert len(before) == 1
    engine, error = recorder.engine, StateError("the file does not exist")
    with monkeypatch.context() as patch:
        patch.setattr(notifier, "_recorded", Mock(engine=Mock(side_effect=[engine, error, error])))
        notifier.notify()
    assert manager.active() == before


def test_a_silence_that_alertmanager_rejects_stops_no_other(
    console: ConsoleRig,
    recorder: Rig,
    monkeypatch: pytest.MonkeyPatch,
    manager: AlertmanagerStandIn,
    make_notifier: MakeNotifier,
) -> None:
    def request(method: str, url: str, json: Any = None) -> Response:
        if method == "POST" and url.endswith("/silences") and json["matchers"][0]["value"] == CAMERA:
            return Response(400)
        return AlertmanagerStandIn.request(manager, method, url, json)

    monkeypatch.setattr(manager, "request", request)
    notifier = make_notifier(recorder.url)
    cameras = [CAMERA, *(f"lab/gate-{number}" for number in range(6))]
    for subject in cameras:
        mute = new_mute(subject, "1h", "repairs", "anna", time.time_ns() // 10**6)
        change_recorded(recorder.url, lambda each, mute=mute: save_mute(each, mute))  # type: ignore[misc]  # bound at once
    for _ in range(2):  # it is tried again at once
        asked = manager.requests
        with pytest.raises(BrokerError, match="got 400"):
            notifier.notify()
        assert {each["matchers"][0]["value"] for each in manager.active()} == set(cameras[1:])
    assert manager.requests > asked


def test_an_episode_stays_muted_behind_many_newer_alerts(
    console: ConsoleRig,
    recorder: Rig,
    monkeypatch: pytest.MonkeyPatch,
    manager: AlertmanagerStandIn,
    make_notifier: MakeNotifier,
) -> None:
    monkeypatch.setattr("consumers.cameras.open_alerts._NEWEST", 2)
    monkeypatch.setattr("consumers.console.data.alerts.NEWEST", 2)
    seen = {"kind": "sighting", "wanted": "person"}
    notifier = make_notifier(recorder.url, reviews=console.context.settings.store)
    console.show([verdict(0)])
    raise_alert(recorder, ALERT, CAMERA, 7_200, ended_ms=1, **seen)
    mute = new_mute(ALERT, "8h", "a painter", "anna", time.time_ns() // 10**6)
    change_recorded(recorder.url, lambda each: save_mute(each, mute))
    for number in range(3):
        raise_alert(recorder, f"{number:032x}", f"lab/gate-{number}", 10 + number, ended_ms=1, **seen)
    raise_alert(recorder, OTHER, CAMERA, 0, **seen)
    notifier.notify()
    assert [each["matchers"][0]["value"] for each in manager.active()] == [f"{ALERT}|{OTHER}"]
    poll(console)
    assert console.context.fleet.sightings(ALL) == 0
    page = console.browser().get(f"/alerts?camera={CAMERA}").text
    assert page.count('class="episode open muted sighting"') == 1


def test_systems_that_share_an_alertmanager_do_not_delete_each_others_silences(
    recorder: Rig, tmp_path: Path, manager: AlertmanagerStandIn, make_notifier: MakeNotifier
) -> None:
    layout = Layout(tmp_path / "second")
    layout.folder.mkdir()
    second = Rig(layout.folder, layout.database_url)
    notifiers = [make_notifier(url) for url in (recorder.url, second.url)]
    for url, subject in ((recorder.url, CAMERA), (second.url, "lab/gate")):
        mute = new_mute(subject, "1h", "repairs", "anna", time.time_ns() // 10**6)
        change_recorded(url, lambda each, mute=mute: save_mute(each, mute))  # type: ignore[misc]  # bound at once
    for notifier in notifiers:
        notifier.notify()
    assert {each["matchers"][0]["value"] for each in manager.active()} == {CAMERA, "lab/gate"}
    expire(second)
    restarted = make_notifier(second.url)  # it finds the silences of the earlier notifier
    restarted.notify()
    assert [each["matchers"][0]["value"] for each in manager.active()] == [CAMERA]
    second.close()


def test_a_mute_ends_also_after_the_state_folder_has_moved(
    tmp_path: Path, manager: AlertmanagerStandIn, make_notifier: MakeNotifier
) -> None:
    before, after = Layout(tmp_path / "before"), Layout(tmp_path / "after")
    before.folder.mkdir()
    recorder = Rig(before.folder, before.database_url)
    mute = new_mute(CAMERA, "1h", "repairs", "anna", time.time_ns() // 10**6)
    change_recorded(recorder.url, lambda each: save_mute(each, mute))
    recorder.close()
    found = []
    for layout in (before, after):
        notifier = make_notifier(layout.database_url, system=RECORDER_KEYS.system_id)
        notifier.notify()
        found.append(len(manager.active()))
        if layout is before:
            before.folder.rename(after.folder)
        else:
            change_recorded(layout.database_url, lambda each: end_mute(each, CAMERA))
            notifier.notify()
    assert (found, manager.active()) == ([1, 1], [])
    assert KeyRing(bytes(32)).system_id != RECORDER_KEYS.system_id


def test_a_mute_ends_also_after_a_new_fleet_secret(
    recorder: Rig, manager: AlertmanagerStandIn, make_notifier: MakeNotifier
) -> None:
    mute = new_mute(CAMERA, "1h", "repairs", "anna", time.time_ns() // 10**6)
    change_recorded(recorder.url, lambda each: save_mute(each, mute))
    found = []
    for keys in (RECORDER_KEYS, KeyRing(bytes(32))):
        notifier = make_notifier(recorder.url, system=keys.system_id)
        notifier.notify()
        found.append(len(manager.active()))
    expire(recorder)
    notifier.notify()
    assert (found, manager.active()) == ([1, 1], [])


@pytest.mark.xdist_group("postgresql")
def test_a_mute_ends_for_a_monitor_on_another_machine_whose_database_is_in_the_environment(
    postgresql: PostgreSQL,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    manager: AlertmanagerStandIn,
    make_notifier: MakeNotifier,
) -> None:
    recorder = Rig(tmp_path, postgresql.create("muted"))
    monkeypatch.setattr("consumers.database.engine._HERE", (None, ""))  # this server is on the same machine
    monkeypatch.setenv("PGHOST", postgresql.host)
    monkeypatch.setenv("PGSSLMODE", "disable")
    monkeypatch.setenv("PGPORT", str(postgresql.port))
    monkeypatch.setenv("PGUSER", USER)
    mute = new_mute(CAMERA, "1h", "repairs", "anna", time.time_ns() // 10**6)
    change_recorded(recorder.url, lambda each: save_mute(each, mute))
    found = []
    for pod in ("monitor-5c9f-abcde", "monitor-5c9f-fghij"):
        monkeypatch.setattr("platform.node", lambda pod=pod: pod)
        notifier = make_notifier("postgresql+psycopg:///muted")
        notifier.notify()
        found.append(len(manager.active()))
        expire(recorder)
    recorder.close()
    assert found == [1, 0]


def test_a_silence_of_an_earlier_version_ends_with_its_mute(
    recorder: Rig, tmp_path: Path, manager: AlertmanagerStandIn, make_notifier: MakeNotifier
) -> None:
    notifier = make_notifier(recorder.url)
    mute = new_mute(CAMERA, "1h", "repairs", "anna", time.time_ns() // 10**6)
    change_recorded(recorder.url, lambda each: save_mute(each, mute))
    notifier.notify()
    (silence,) = manager.active()
    silence["createdBy"] = f"pointillist: {CAMERA}"
    of_another_system = silence | {"id": "theirs", "comment": "paint (muted by bob)"}
    manager.silences["theirs"] = of_another_system
    upgraded = make_notifier(recorder.url)  # after the upgrade
    upgraded.notify()
    assert len(manager.active()) == 2
    expire(recorder)
    upgraded.notify()
    assert manager.active() == [of_another_system]


def test_a_mute_does_not_silence_an_alert_of_the_next_model(
    console: ConsoleRig, recorder: Rig, manager: AlertmanagerStandIn, make_notifier: MakeNotifier
) -> None:
    published = list[int]()
    notifier = make_notifier(recorder.url, published_ms=lambda: published)
    now_ms = time.time_ns() // 10**6
    raise_alert(recorder, ago_s=60)
    mute = new_mute(ALERT, "7d", "a new model is on its way", "anna", now_ms)
    change_recorded(recorder.url, lambda each: save_mute(each, mute))
    published.append(now_ms - 30_000)
    raise_alert(recorder, OTHER)
    notifier.notify()
    assert [each["matchers"][0]["value"] for each in manager.active()] == [ALERT]
    published.clear()
    notifier.notify()
    assert [each["matchers"][0]["value"] for each in manager.active()] == [f"{ALERT}|{OTHER}"]


def test_the_command_line_mutes_lists_and_unmutes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(tmp_path)
    recorder = Rig(tmp_path, layout.database_url)
    raise_alert(recorder)
    layout.scenario.write_text("site: local\ncameras: [{name: door}]\n")
    command(["door", ALERT], "2h", "repairs", end=False, state=tmp_path)
    command(None, state=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["local/door is muted for 2h", f"{ALERT} is muted for 2h"]
    assert {line.partition(" until ")[0] for line in lines[2:]} == {"local/door", ALERT}
    assert all(line.endswith(f", by {OWNER}: repairs") for line in lines[2:])
    command(["door"], end=True, state=tmp_path)
    capsys.readouterr()
    command(None, state=tmp_path)
    assert capsys.readouterr().out.startswith(ALERT)
    with pytest.raises(ConfigError, match="expected the id of a stored alert"):
        command(["door", OTHER], "2h", "repairs", end=False, state=tmp_path)
    with pytest.raises(ConfigError, match=r"^local/gate: expected a camera of `pointillist cameras --state .*`"):
        command(["door", "gate"], "2h", "repairs", end=False, state=tmp_path)
    recorder.close()


def test_a_camera_name_as_long_as_the_id_of_an_alert_is_muted_without_its_site(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, name = Layout(tmp_path), "gate" * 8
    recorder = Rig(tmp_path, layout.database_url)
    layout.scenario.write_text(f"site: local\ncameras: [{{name: {name}}}]\n")
    command([name], "2h", "repairs", end=False, state=tmp_path)
    assert capsys.readouterr().out == f"local/{name} is muted for 2h\n"
    recorder.close()


def test_a_mute_without_a_database_is_rejected_and_not_logged(tmp_path: Path) -> None:
    rig = ConsoleRig(tmp_path)
    rig.show([verdict(0)])
    answer = rig.browser().post(f"/api/v1/cameras/{CAMERA}/mute", json={"for": "1h", "reason": "repairs"})
    assert answer.status_code == 503
    assert "is missing" in answer.json()["error"]
    assert rig.context.store.newest_operations(CAMERA) == []
    rig.close()
