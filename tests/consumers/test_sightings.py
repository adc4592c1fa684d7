from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import select

from consumers.cameras.open_alerts import HOLD_S, lasting_sightings, muted_cameras, newest_alerts, open_episodes
from consumers.cameras.state import State
from consumers.console.data.alerts import read_episodes
from consumers.console.data.system_charts import alerts_by_minute
from consumers.database.changes import change_recorded
from consumers.database.mutes import new_mute
from consumers.database.queries import open_records
from consumers.database.tables import alerts
from consumers.recorder.purge import purge
from consumers.settings import Bounds
from consumers.sightings.rules_table import new_rule, remove_rule, save_rule
from infra.monitor.alert_notifier import AlertNotifier, document_of
from infra.up.system_state import _read
from schemas.pointillist_pb2 import Alert, Verdict
from tests.consumers.console_rig import ALERT, ConsoleRig, poll, raise_alert
from tests.consumers.recorder_rig import CAMERA, MakeRig, Rig, picture, verdict
from tests.consumers.scene import Scene
from tests.waiting import until

LONG_ABSENCE = {"absent_s": 86_400, "cooldown_s": 60}


def save_sighting_rule(rig: Rig, wanted: str = "vehicle", cameras: str = "lab/*", **fields: object) -> None:
    """Save a rule, and let the recorder read it."""
    rule = new_rule({"cameras": cameras, "wanted": wanted} | LONG_ABSENCE | fields, "root", 5)
    change_recorded(rig.url, lambda each: save_rule(each, rule))
    rig.store.tend_sightings()


def cars(first: int, number: int = 3, **fields: object) -> list[Verdict]:
    """Return verdicts on a car."""
    values: dict[str, Any] = {"confidence": 0.9, "group_confidence": 0.9} | fields
    car = Verdict(class_name="cab", class_group="vehicle", **values)
    verdicts = [verdict(n) for n in range(first, first + number)]
    for each in verdicts:
        each.MergeFrom(car)
    return verdicts


def rows(rig: Rig) -> list[Mapping[str, Any]]:
    with rig.engine.begin() as connection:
        return [dict(row) for row in connection.execute(select(alerts).order_by(alerts.c.raised_ms)).mappings()]


def test_a_wanted_group_raises_one_alert_with_its_picture_until_it_has_been_absent(make_rig: MakeRig) -> None:
    rig = make_rig()
    save_sighting_rule(rig, absent_s=5)
    assert rig.verdicts(cars(0, 2)).sightings == []
    (alert,) = rig.verdicts(cars(2, 5, preview=picture("JPEG"))).sightings
    assert (alert.kind, alert.wanted, alert.camera_id) == ("sighting", "vehicle", CAMERA)
    assert (alert.frames.first, alert.frames.last) == (0, 2)
    assert alert.confidence == pytest.approx(0.9)
    assert alert.thumbnail.startswith(b"\x89PNG")
    assert rig.verdicts(cars(7, 20)).sightings == []
    (row,) = rows(rig)
    assert (row["ended_ms"], row["published"], row["wanted"]) == (0, False, "vehicle")
    rig.store.tend_sightings()
    assert rows(rig)[0]["ended_ms"] == 0
    seen_ms = max(each.state.seen_ms for each in rig.store.sightings._watched.values())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "time_ns", lambda: (seen_ms + 5_000) * 10**6)
        rig.store.tend_sightings()
    assert rows(rig)[0]["ended_ms"] == seen_ms


def test_another_class_an_unsure_verdict_or_another_camera_raises_nothing(make_rig: MakeRig) -> None:
    rig = make_rig()
    save_sighting_rule(rig, cameras="lab/gate-*")
    gate = "lab/gate-2"
    assert rig.verdicts(cars(0, 9)).sightings == []
    for n, (name, group) in enumerate([("dog", "animal"), ("unsure", ""), ("unsure", "vehicle")]):
        made = [verdict(10 * n + k, class_name=name, class_group=group) for k in range(9)]
        assert rig.verdicts(made, gate).sightings == []
    assert rig.verdicts(cars(50, 9), gate).sightings != []


def test_a_wanted_group_is_compared_by_its_own_confidence_and_a_wanted_class_by_that_of_the_class(
    make_rig: MakeRig,
) -> None:
    rig = make_rig()
    save_sighting_rule(rig)
    save_sighting_rule(rig, "cab")
    (alert,) = rig.verdicts(cars(0, 5, confidence=0.45, group_confidence=0.89)).sightings
    assert alert.wanted == "vehicle"
    assert alert.confidence == pytest.approx(0.89)
    assert rig.verdicts(cars(0, 5, confidence=0.45, group_confidence=math.inf), "lab/other").sightings == []


def test_the_rule_with_the_most_specific_cameras_applies(make_rig: MakeRig) -> None:
    rig = make_rig()
    save_sighting_rule(rig, frames=2)
    save_sighting_rule(rig, frames=6, cameras=CAMERA)
    assert rig.verdicts(cars(0, 5)).sightings == []
    assert len(rig.verdicts(cars(5, 1)).sightings) == 1
    assert len(rig.verdicts(cars(0, 2), "lab/other").sightings) == 1


def test_a_restart_during_a_sighting_raises_no_second_alert_and_the_sighting_still_ends(make_rig: MakeRig) -> None:
    rig = make_rig()
    save_sighting_rule(rig, absent_s=5)
    rig.verdicts(cars(0))
    restarted = make_rig()
    assert restarted.verdicts(cars(3, 9)).sightings == []
    with pytest.MonkeyPatch.context() as patched:
        late_ns = time.time_ns() + 6 * 10**9
        patched.setattr(time, "time_ns", lambda: late_ns)
        restarted.store.tend_sightings()
    (row,) = rows(restarted)
    assert row["ended_ms"] > 0


def test_a_sighting_that_lasts_for_days_raises_no_second_alert_after_a_restart(make_rig: MakeRig) -> None:
    rig = make_rig()
    save_sighting_rule(rig)
    rig.verdicts(cars(0))
    late_ns = time.time_ns() + 3 * 86_400 * 10**9
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "time_ns", lambda: late_ns)
        restarted = make_rig()
        assert restarted.verdicts(cars(3, 9)).sightings == []


def test_a_sighting_and_a_backdoor_are_two_episodes_and_only_the_backdoor_changes_the_state(
    console: ConsoleRig, recorder: Rig
) -> None:
    console.show([verdict(0)])
    save_sighting_rule(recorder)
    recorder.verdicts(cars(1))
    ages_ms = time.time_ns() // 10**6 - 60_000
    assert _read(recorder.engine, {}, {}, ages_ms)[CAMERA].state is not State.ALERT
    with recorder.engine.begin() as connection:
        assert sum(alerts_by_minute(connection, ages_ms).values()) == 0
        (seen,) = open_episodes(newest_alerts(connection), {})
    mute = new_mute(seen.newest, "1h", "a test", "root", ages_ms + 60_000)
    assert muted_cameras([seen], {mute.subject: mute}) == {}
    raise_alert(recorder)
    poll(console)
    found = console.context.recorded.read(read_episodes, {}, [])
    assert sorted((each.wanted, len(each.alert_ids)) for each, _ in found) == [("", 1), ("vehicle", 1)]
    card = console.context.fleet.card(CAMERA)
    assert card is not None
    assert (card.alert, card.sighting) == (ALERT, seen.newest)
    assert console.context.fleet.alerts() == (1, 0)
    assert _read(recorder.engine, {}, {}, ages_ms)[CAMERA].state is State.ALERT


def test_a_removed_rule_ends_its_sightings(make_rig: MakeRig) -> None:
    rig = make_rig()
    save_sighting_rule(rig)
    rig.verdicts(cars(0))
    change_recorded(rig.url, lambda each: remove_rule(each, "lab/*", "vehicle"))
    rig.store.tend_sightings()
    assert rows(rig)[0]["ended_ms"] > 0
    assert rig.verdicts(cars(3, 9)).sightings == []


def test_a_failed_transaction_changes_no_state_and_loses_no_picture(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig()
    save_sighting_rule(rig)
    rig.verdicts(cars(0, 2, preview=picture("JPEG")))

    def failing(*_: object) -> None:
        raise OSError("a full disk")

    monkeypatch.setattr(rig.store.history, "add", failing)
    with pytest.raises(OSError, match="full"):
        rig.verdicts(cars(2, 1))
    monkeypatch.undo()
    assert rows(rig) == []
    (alert,) = rig.verdicts(cars(2, 1)).sightings
    assert alert.thumbnail.startswith(b"\x89PNG")
    assert not rig.store.sightings._pictures


def test_pictures_for_alerts_that_may_come_take_no_more_memory_than_their_bound(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, jpeg = make_rig(), picture("JPEG")
    save_sighting_rule(rig)
    monkeypatch.setattr("consumers.sightings.sightings._MOST_PICTURE_BYTES", 2 * len(jpeg))
    for number in range(4):
        rig.verdicts(cars(0, 1, preview=jpeg), f"lab/{number}")
    kept = rig.store.sightings._pictures
    assert [camera for camera, _ in kept] == ["lab/2", "lab/3"]
    (alert,) = rig.verdicts(cars(1, 2), "lab/3").sightings
    assert alert.thumbnail.startswith(b"\x89PNG")
    for number in range(4, 6):
        rig.verdicts(cars(0, 1, preview=jpeg), f"lab/{number}")
    assert [camera for camera, _ in kept] == ["lab/4", "lab/5"]


def test_a_recorder_ends_the_sightings_of_its_claimed_partitions(make_rig: MakeRig) -> None:
    first, second = make_rig(group="recorders"), make_rig(group="recorders")
    place = (first.settings.verdicts_topic, 0)
    first.offsets |= first.store.claim({place[0]}, {place: (0, 0)})
    save_sighting_rule(first, absent_s=5)
    first.verdicts(cars(0))
    second.offsets |= second.store.claim({place[0]}, {place: (0, 3)})
    late_ns = time.time_ns() + 6 * 10**9
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "time_ns", lambda: late_ns)
        first.store.tend_sightings()
        assert rows(first)[0]["ended_ms"] == 0
        second.store.tend_sightings()
    assert rows(first)[0]["ended_ms"] > 0


@pytest.mark.parametrize("restarts", [False, True])
def test_a_clock_that_was_set_back_prolongs_neither_a_sighting_nor_its_cool_down(
    make_rig: MakeRig, restarts: bool
) -> None:
    rig = make_rig()
    save_sighting_rule(rig, absent_s=5)
    begun_ns = time.time_ns()

    def at(seconds: float) -> None:
        patched.setattr(time, "time_ns", lambda: begun_ns + round(seconds * 10**9))

    with pytest.MonkeyPatch.context() as patched:
        at(86_400)
        assert len(rig.verdicts(cars(0)).sightings) == 1
        at(0)
        rig = make_rig() if restarts else rig
        rig.store.tend_sightings()
        at(6)
        rig.store.tend_sightings()
        (row,) = rows(rig)
        assert 0 < row["ended_ms"] <= (begun_ns + 6 * 10**9) // 10**6
        assert rig.verdicts(cars(3)).sightings == []
        at(61)
        assert len(rig.verdicts(cars(6)).sightings) == 1


def test_sightings_neither_count_as_backdoors_nor_hide_any(make_rig: MakeRig) -> None:
    rig = make_rig(bounds=Bounds(alert_rows=2))
    save_sighting_rule(rig)
    backdoor = [verdict(n, flagged=True, whole=True, class_name="dog") for n in range(12)]
    assert len(rig.verdicts(backdoor).alerts) == 1
    for n in range(4):
        written = rig.verdicts(cars(0), f"lab/gate-{n}")
        assert (len(written.alerts), len(written.sightings)) == (0, 1)
    with open_records(rig.url) as records:
        assert records.alert_count() == 1
        assert records.alerts_by_camera() == {CAMERA: 1}
    with rig.engine.begin() as connection:
        connection.execute(alerts.update().values(published=True, ended_ms=1))
    purge(rig.store, rig.bounds)
    assert sorted(row["kind"] for row in rows(rig)) == ["sighting", "sighting", "strip"]
    with open_records(rig.url) as records:
        assert records.alert_count() == 1
    with rig.engine.begin() as connection:
        assert sorted(each.wanted for each in newest_alerts(connection)) == ["", "vehicle", "vehicle"]


def test_an_open_sighting_survives_many_newer_ones(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.cameras.open_alerts._NEWEST", 2)
    rig = make_rig(bounds=Bounds(alert_rows=2))
    save_sighting_rule(rig)
    rig.verdicts(cars(0))
    for n in range(3):
        rig.verdicts(cars(0), f"lab/gate-{n}")
    now_ms = time.time_ns() // 10**6
    with rig.engine.begin() as connection:
        mine = alerts.c.camera == CAMERA
        connection.execute(alerts.update().where(mine).values(raised_ms=now_ms - 7_200_000))
        connection.execute(alerts.update().where(~mine).values(ended_ms=now_ms - 3_600_000))
        connection.execute(alerts.update().values(published=True))
        assert lasting_sightings(connection, now_ms) == {CAMERA: ("vehicle",)}
        found = newest_alerts(connection)
    assert (len(found), [each.ended_ms for each in found if each.camera == CAMERA]) == (4, [0])
    purge(rig.store, rig.bounds)
    assert CAMERA in {row["camera"] for row in rows(rig)}
    with rig.engine.begin() as connection:
        connection.execute(alerts.update().where(mine).values(ended_ms=now_ms - 1000))
        assert lasting_sightings(connection, now_ms) == {CAMERA: ("vehicle",)}


def test_no_sighting_that_ended_before_the_clock_was_set_back_is_open_until_its_time_comes(recorder: Rig) -> None:
    save_sighting_rule(recorder)
    recorder.verdicts(cars(0))
    notifier, now_ms = AlertNotifier("http://127.0.0.1:1", recorder.url), time.time_ns() // 10**6
    # The recorder's clock may be a little ahead.
    for ahead_ms, lasts in ((1000, True), (3_600_000, False)):
        with recorder.engine.begin() as connection:
            connection.execute(alerts.update().values(ended_ms=now_ms + ahead_ms))
            assert bool(lasting_sightings(connection, now_ms)) is lasts
            assert bool(notifier._open_ids(newest_alerts(connection))) is lasts
    notifier.close()


def test_state_that_no_rule_needs_is_deleted_from_memory(make_rig: MakeRig) -> None:
    rig = make_rig()
    save_sighting_rule(rig, absent_s=5)
    rig.verdicts(cars(0, 1))
    assert len(rig.store.sightings._watched) == 1
    rig.store.sightings.purge(time.time_ns() // 10**6 + 5_001)
    assert rig.store.sightings._watched == {}


def test_a_sighting_is_posted_under_its_own_alert_name_until_its_hold_time_is_over(recorder: Rig) -> None:
    save_sighting_rule(recorder)
    (alert,) = recorder.verdicts(cars(0)).sightings
    document = document_of(alert, "http://console")
    labels = document["labels"]
    assert (labels["alertname"], labels["severity"], labels["wanted"]) == ("PointillistSighting", "info", "vehicle")
    assert document["annotations"]["summary"] == "vehicle seen at door, 90 %"
    assert document["annotations"]["clip_url"].endswith(f"/camera/{CAMERA}/clip.mp4?at_ms={alert.raised_ms}")
    assert document["annotations"]["runbook_url"].endswith("#pointillistsighting")
    notifier = AlertNotifier("http://127.0.0.1:1", recorder.url)
    now_ms = time.time_ns() // 10**6
    for ended_ms, is_open in ((0, True), (now_ms - 1000, True), (now_ms - round(1000 * HOLD_S), False)):
        with recorder.engine.begin() as connection:
            connection.execute(alerts.update().values(ended_ms=ended_ms))
            assert bool(notifier._open_ids(newest_alerts(connection))) is is_open
    notifier.close()


def test_a_sighting_is_listed_as_an_alert_and_does_not_change_the_state_of_the_camera(
    console: ConsoleRig, recorder: Rig
) -> None:
    console.show([verdict(0, class_name="cab", class_group="vehicle")])
    browser = console.browser()
    page = browser.get("/sighting-rules").text
    assert "There is no rule" in page
    assert '<option value="vehicle">' in page
    sent = {
        "cameras": "lab/*",
        "wanted": "vehicle",
        "frames": "3",
        "confidence": "0.5",
        "absent_s": "60",
        "cooldown_s": "900",
    }
    rejected = browser.post("/sighting-rules", data={"csrf": console.csrf()} | sent | {"frames": "1"})
    assert "frames" in rejected.headers["location"]
    assert browser.post("/sighting-rules", data={"csrf": console.csrf()} | sent).status_code == 303
    assert "<td>lab/*</td><td>vehicle</td>" in browser.get("/sighting-rules").text
    recorder.store.tend_sightings()
    (alert,) = recorder.verdicts(cars(1, 3, preview=picture("JPEG"))).sightings
    poll(console)
    page = browser.get("/alerts").text
    assert "Vehicle at" in page
    assert "90.0 % sure." in page
    assert "Still in view" in page
    assert "trigger may be in front" not in page
    assert f"/camera/{CAMERA}/clip.mp4" in page
    assert browser.get(f"/alerts/{alert.alert_id}.png").status_code == 200
    fleet = browser.get("/").text
    assert 'class="pill good"><a href="/alerts">no alert · 1 sighting</a>' in fleet
    assert 'id="tally-alerts" class="tally">1<' in fleet.replace("\n", "")
    assert 'class="card alert' not in fleet
    assert "1 alert" not in fleet
    browser.post(f"/alerts/{alert.alert_id}", data={"csrf": console.csrf(), "state": "closed", "back": "open"})
    poll(console)
    assert "There are no open alerts" in browser.get("/alerts").text
    assert 'id="tally-alerts" class="tally"><' in browser.get("/").text.replace("\n", "")
    removed = browser.post("/sighting-rules/remove", data={"csrf": console.csrf()} | sent)
    assert removed.headers["location"].endswith("outcome=removed")
    assert "There is no rule" in browser.get("/sighting-rules").text


@pytest.mark.brokers
async def test_a_running_recorder_publishes_a_sighting_and_ends_it(scene: Scene) -> None:
    def row() -> Mapping[str, Any] | None:
        with scene.records() as records, records._engine.begin() as connection:
            found = connection.execute(select(alerts)).mappings().first()
            return None if found is None else dict(found)

    async with scene.recorder():
        made = new_rule({"cameras": "lab/*", "wanted": "vehicle", "absent_s": 5}, "root", 5)
        change_recorded(scene.settings.database, lambda each: save_rule(each, made))
        sent = itertools.count()
        found: list[Alert] = []

        async def published() -> list[Alert]:
            nonlocal found
            await scene.verdicts(cars(next(sent), 1))  # repeated until the recorder has read the rule
            found = await scene.alerts()
            return found

        await until(published, "an alert")
        assert {(alert.kind, alert.wanted, alert.camera_id) for alert in found} == {("sighting", "vehicle", CAMERA)}
        await until(lambda: (row() or {}).get("ended_ms", 0) > 0)
        assert scene.metric("pointillist_alerts_total", kind="strip") == 0
    assert len(await scene.alerts()) == 1
