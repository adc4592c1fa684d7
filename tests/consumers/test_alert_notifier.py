"""The monitor's notifier of alerts, with a stand-in for Alertmanager."""

from __future__ import annotations

import time
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import delete
from sqlalchemy.exc import DatabaseError

from consumers.database.recorded import RecorderDatabase
from consumers.database.tables import alerts
from infra.monitor.alert_notifier import REPEAT_S
from schemas.errors import BrokerError
from tests.clocks import Clock
from tests.consumers.alertmanager_stand_in import AlertmanagerStandIn, MakeNotifier
from tests.consumers.console_rig import ALERT, OTHER, ConsoleRig, raise_alert
from tests.consumers.recorder_rig import Rig

HOUR_S = 3600


def test_only_new_alerts_are_open_before_the_decisions_have_been_read(
    console: ConsoleRig, recorder: Rig, tmp_path: Path, manager: AlertmanagerStandIn, make_notifier: MakeNotifier
) -> None:
    raise_alert(recorder, ago_s=HOUR_S)
    raise_alert(recorder, OTHER, "lab/gate")
    console.context.store.review([ALERT], "closed", "anna")
    away = tmp_path / "away.sqlite"
    notifier = make_notifier(recorder.url, reviews=f"sqlite:///{away}")
    notifier.notify()
    assert manager.pop_posted() == [OTHER]
    console.context.store.review([OTHER], "closed", "anna")
    away.symlink_to(console.context.settings.store.removeprefix("sqlite:///"))
    notifier.notify()
    assert manager.pop_posted() == [OTHER], "the end of the alert"
    away.unlink()
    notifier.notify()
    assert manager.pop_posted() == [], "the last read decisions apply"


def test_a_rejected_alert_delays_neither_other_batches_nor_the_ends_of_alerts(
    console: ConsoleRig,
    recorder: Rig,
    monkeypatch: pytest.MonkeyPatch,
    manager: AlertmanagerStandIn,
    make_notifier: MakeNotifier,
) -> None:
    monkeypatch.setattr("infra.monitor.alert_notifier._AT_ONCE", 1)
    third = "ef" * 16
    notifier = make_notifier(recorder.url, reviews=console.context.settings.store)
    raise_alert(recorder)
    notifier.notify()
    assert manager.pop_posted() == [ALERT]
    raise_alert(recorder, third, "lab/yard", ago_s=60)
    raise_alert(recorder, OTHER, "lab/gate")
    console.context.store.review([ALERT], "closed", "anna")
    manager.rejects = OTHER
    with pytest.raises(BrokerError, match="expected status 200, got 400"):
        notifier.notify()
    assert manager.pop_posted() == [third, ALERT]
    manager.rejects = ""
    notifier.notify()
    assert manager.pop_posted() == [OTHER]


def test_a_damaged_message_delays_no_alert(
    console: ConsoleRig, recorder: Rig, manager: AlertmanagerStandIn, make_notifier: MakeNotifier
) -> None:
    notifier = make_notifier(recorder.url, reviews=console.context.settings.store)
    raise_alert(recorder, ago_s=60, message=b"\xff")
    raise_alert(recorder, OTHER, "lab/gate", kind="combined", statistic=2, wanted="", checked=5)
    notifier.notify()
    found = {each["labels"]["alert_id"]: each["annotations"]["summary"].partition(":")[0] for each in manager.posted}
    assert found == {ALERT: "lab/door", OTHER: "lab/gate"}


@pytest.mark.parametrize("is_missing", [True, False])
def test_open_alerts_are_repeated_while_the_database_is_unreachable(
    console: ConsoleRig,
    recorder: Rig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_missing: bool,
    manager: AlertmanagerStandIn,
    make_notifier: MakeNotifier,
) -> None:
    clock, away = Clock(0.0), tmp_path / "away.sqlite"
    notifier = make_notifier(recorder.url, reviews=console.context.settings.store, clock_s=clock)
    raise_alert(recorder)
    notifier.notify()
    assert manager.pop_posted() == [ALERT]
    raise_alert(recorder, OTHER, "lab/gate")
    console.context.store.review([ALERT], "closed", "anna")
    if not is_missing:
        away.write_bytes(b"no database" * 100)
    recorded = RecorderDatabase(f"sqlite:///{away}")
    monkeypatch.setattr(notifier, "_recorded", recorded)
    for wait_s, posted in ((1.0, []), (REPEAT_S, [ALERT])):
        clock.now_s += wait_s
        with nullcontext() if is_missing else pytest.raises(DatabaseError, match="not a database"):
            notifier.notify()
        assert all(datetime.fromisoformat(each["endsAt"]) > datetime.now(UTC) for each in manager.posted)
        assert manager.pop_posted() == posted
    monkeypatch.undo()
    recorded.close()
    notifier.notify()
    assert manager.pop_posted() == [OTHER, ALERT], "the new alert, and the end of the other"


@pytest.mark.parametrize("ends_by", ["review", "file"])
def test_an_alert_of_a_damaged_database_is_open_until_it_is_closed_or_the_file_removed(
    console: ConsoleRig, recorder: Rig, ends_by: str, manager: AlertmanagerStandIn, make_notifier: MakeNotifier
) -> None:
    clock = Clock(0.0)
    notifier = make_notifier(recorder.url, reviews=console.context.settings.store, clock_s=clock)
    raise_alert(recorder)
    notifier.notify()
    assert manager.pop_posted() == [ALERT]
    with recorder.engine.begin() as connection:  # like the database that replaces a damaged one
        connection.execute(delete(alerts))
    file = Path(recorder.engine.url.database or "")
    aside = file.with_name(f"{file.name}.damaged-{time.time_ns() // 10**6}")
    aside.touch()
    clock.now_s += REPEAT_S
    notifier.notify()
    assert all(datetime.fromisoformat(each["endsAt"]) > datetime.now(UTC) for each in manager.posted)
    assert manager.pop_posted() == [ALERT]
    if ends_by == "review":
        console.context.store.review([ALERT], "closed", "anna")
    else:
        aside.unlink()
    notifier.notify()
    assert manager.pop_posted() == [ALERT], "the end of the alert"
