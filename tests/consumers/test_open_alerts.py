"""The alerts of many cameras that are read for cards, pages and notifications."""

from __future__ import annotations

import time

import pytest

from consumers.cameras.episodes import CLOSED, Episode
from consumers.cameras.open_alerts import newest_alerts, open_episodes
from consumers.console.access.sight import ALL, Sight
from consumers.console.data.alerts import AlertRow, read_episodes
from consumers.database.console_store import Review
from consumers.database.mutes import new_mute, save_mute
from tests.consumers.console_rig import ALERT, raise_alert
from tests.consumers.recorder_rig import MakeRig, Rig


def episodes_of(rig: Rig, camera: str = "", sight: Sight = ALL) -> list[tuple[Episode, list[AlertRow]]]:
    """Return the episodes of a camera or of all, without any review."""
    with rig.engine.begin() as connection:
        return read_episodes(connection, {}, (), camera, sight)


def limit_reads(monkeypatch: pytest.MonkeyPatch, newest: int, of_each: int) -> None:
    """Limit the alerts that are read: `newest` of all cameras, and `of_each` of each camera."""
    for name in ("cameras.open_alerts._NEWEST", "console.data.alerts.NEWEST"):
        monkeypatch.setattr(f"consumers.{name}", newest)
    monkeypatch.setattr("consumers.cameras.open_alerts._OF_EACH", of_each)


def test_a_camera_with_many_alerts_hides_no_alert_of_another(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_reads(monkeypatch, newest=4, of_each=2)
    rig = make_rig()
    raise_alert(rig, "01" * 16, "lab/door", ago_s=9000)
    raise_alert(rig, "ef" * 16, "lab/door", ago_s=8000)
    raise_alert(rig, ALERT, "lab/door", ago_s=7000)
    restarts = [f"{n:032x}" for n in range(6)]
    for n, alert_id in enumerate(restarts):
        raise_alert(rig, alert_id, "lab/gate", ago_s=60 - n)
    with rig.engine.begin() as connection:
        newest = newest_alerts(connection)
    assert [each.alert_id for each in newest] == [*restarts[:1:-1], ALERT, "ef" * 16]
    assert {each.camera for each in open_episodes(newest, {})} == {"lab/door", "lab/gate"}
    closed = {each: Review(CLOSED, "anna", 1) for each in (ALERT, "ef" * 16)}
    assert {each.camera for each in open_episodes(newest, closed)} == {"lab/gate"}
    shown = {each.camera: [alert.alert_id for alert in raised] for each, raised in episodes_of(rig)}
    assert shown == {"lab/door": [ALERT, "ef" * 16], "lab/gate": restarts[:1:-1]}
    assert [each.camera for each, _ in episodes_of(rig, "lab/door")] == ["lab/door"]
    assert episodes_of(rig, sight=Sight(frozenset({"north"}))) == []


def test_an_open_sighting_is_read_behind_newer_ones_of_other_cameras_and_classes(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_reads(monkeypatch, newest=4, of_each=2)
    rig = make_rig()
    expected: set[tuple[str, str]] = set()
    for n, (camera, wanted) in enumerate(
        (c, w) for c in ("lab/door", "lab/gate", "north/yard") for w in ("cab", "dog")
    ):
        expected.add((camera, wanted))
        for k in range(2):
            sighting = {"kind": "sighting", "wanted": wanted, "ended_ms": 1}
            raise_alert(rig, f"{16 * n + k:032x}", camera, ago_s=9000 - 20 * n - k, **sighting)
    for n in range(5):
        raise_alert(rig, f"{512 + n:032x}", "lab/busy", ago_s=60 - n, kind="sighting", wanted="cab", ended_ms=1)
    with rig.engine.begin() as connection:
        found = newest_alerts(connection)
    assert {(each.camera, each.wanted) for each in found} == expected | {("lab/busy", "cab")}
    assert len(found) == len(expected) + 4
    assert all(int(each.alert_id, 16) % 16 == 1 for each in found if each.camera != "lab/busy")
    shown = {(each.camera, each.wanted) for each, _ in episodes_of(rig, sight=Sight(frozenset({"lab"})))}
    assert shown == {each for each in expected if each[0] != "north/yard"} | {("lab/busy", "cab")}


def test_the_alerts_of_a_muted_episode_are_read_behind_newer_ones(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_reads(monkeypatch, newest=2, of_each=1)
    rig = make_rig()
    raise_alert(rig, "01" * 16, "lab/door", ago_s=9000)
    raise_alert(rig, ALERT, "lab/door", ago_s=8000)
    raise_alert(rig, "ef" * 16, "lab/door", ago_s=7000)
    for n in range(3):
        raise_alert(rig, f"{n:032x}", f"lab/gate-{n}", ago_s=60 - n)
    mute = new_mute(ALERT, "8h", "repairs", "anna", time.time_ns() // 10**6)
    with rig.engine.begin() as connection:
        save_mute(connection, mute)
        found = [each.alert_id for each in newest_alerts(connection) if each.camera == "lab/door"]
    assert sorted(found) == [ALERT, "ef" * 16]
    ((episode, _),) = episodes_of(rig, "lab/door")
    assert episode.alert_ids == [ALERT, "ef" * 16]


def test_a_muted_episode_with_many_alerts_unmutes_no_other(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_reads(monkeypatch, newest=2, of_each=1)
    rig, now_ms = make_rig(), time.time_ns() // 10**6
    seen = {"kind": "sighting", "wanted": "person", "ended_ms": 1}
    for n in range(6):
        raise_alert(rig, f"{n:032x}", "lab/gate", ago_s=9000 - n, **seen)
    raise_alert(rig, ALERT, "lab/door", ago_s=8000, **seen)
    for n in range(6, 9):
        raise_alert(rig, f"{n:032x}", "lab/gate", ago_s=60 - n, **seen)
    with rig.engine.begin() as connection:
        for alert_id in (f"{0:032x}", ALERT):
            save_mute(connection, new_mute(alert_id, "8h", "repairs", "anna", now_ms))
        assert ALERT in {each.alert_id for each in newest_alerts(connection)}
