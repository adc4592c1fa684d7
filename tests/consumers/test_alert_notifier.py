"""The monitor's notifier of alerts, with a stand-in for Alertmanager."""

from __future__ import annotations

import time
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response
from sqlalchemy import delete
from sqlalchemy.exc import DatabaseError

from consumers.database.tables import alerts
from infra.monitor.alert_notifier import REPEAT_S, AlertNotifier
from schemas.errors import BrokerError
from tests.consumers.console_rig import ConsoleRig
from tests.consumers.recorder_rig import Rig
from tests.consumers.test_console_pages import ALERT, raise_alert
from tests.producers.spool_rig import Clock

OTHER = "cd" * 16
HOUR_S = 3600


class Manager:
    """An Alertmanager without silences."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        self.refuses = ""
        """Id of an alert that it refuses, with the other alerts of the request."""

    def request(self, method: str, url: str, json: Any = None) -> Response:
        if url.endswith("/alerts"):
            if self.refuses in [each["labels"]["alert_id"] for each in json]:
                return Response(400)
            self.posted += json
        return Response(200, json=[])

    def taken(self) -> list[str]:
        """Return the ids of the alerts that were posted since the last call."""
        found, self.posted = [each["labels"]["alert_id"] for each in self.posted], []
        return found

    def close(self) -> None:
        """Nothing is open."""


def test_until_the_decisions_have_been_read_once_only_new_alerts_are_open(
    console: ConsoleRig, recorder: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_alert(recorder, ago_s=HOUR_S)
    raise_alert(recorder, OTHER, "lab/gate")
    console.context.store.review([ALERT], "closed", "anna")
    manager, away = Manager(), tmp_path / "away.sqlite"
    notifier = AlertNotifier("http://x", recorder.url, reviews=f"sqlite:///{away}")
    monkeypatch.setattr(notifier, "_client", manager)
    notifier.notify()
    assert manager.taken() == [OTHER]
    console.context.store.review([OTHER], "closed", "anna")
    away.symlink_to(console.context.settings.store.removeprefix("sqlite:///"))
    notifier.notify()
    assert manager.taken() == [OTHER], "its end"
    away.unlink()
    notifier.notify()
    assert manager.taken() == [], "the decisions that were read last apply"
    notifier.close()


def test_an_alert_that_is_refused_stops_neither_other_batches_nor_the_ends(
    console: ConsoleRig, recorder: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.monitor.alert_notifier._AT_ONCE", 1)
    manager, third = Manager(), "ef" * 16
    notifier = AlertNotifier("http://x", recorder.url, reviews=console.context.settings.store)
    monkeypatch.setattr(notifier, "_client", manager)
    raise_alert(recorder)
    notifier.notify()
    assert manager.taken() == [ALERT]
    raise_alert(recorder, third, "lab/yard", ago_s=60)
    raise_alert(recorder, OTHER, "lab/gate")
    console.context.store.review([ALERT], "closed", "anna")
    manager.refuses = OTHER
    with pytest.raises(BrokerError, match="expected status 200, got 400"):
        notifier.notify()
    assert manager.taken() == [third, ALERT]
    manager.refuses = ""
    notifier.notify()
    assert manager.taken() == [OTHER]
    notifier.close()


@pytest.mark.parametrize("is_missing", [True, False])
def test_while_the_database_is_away_open_alerts_are_repeated_and_none_ends(
    console: ConsoleRig, recorder: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_missing: bool
) -> None:
    manager, clock, away = Manager(), Clock(0.0), tmp_path / "away.sqlite"
    notifier = AlertNotifier("http://x", recorder.url, reviews=console.context.settings.store, clock_s=clock)
    monkeypatch.setattr(notifier, "_client", manager)
    raise_alert(recorder)
    notifier.notify()
    assert manager.taken() == [ALERT]
    raise_alert(recorder, OTHER, "lab/gate")
    console.context.store.review([ALERT], "closed", "anna")
    if not is_missing:
        away.write_bytes(b"no database" * 100)
    monkeypatch.setattr(notifier, "_database", f"sqlite:///{away}")
    for wait_s, taken in ((1.0, []), (REPEAT_S, [ALERT])):
        clock.now_s += wait_s
        with nullcontext() if is_missing else pytest.raises(DatabaseError, match="not a database"):
            notifier.notify()
        assert all(datetime.fromisoformat(each["endsAt"]) > datetime.now(UTC) for each in manager.posted)
        assert manager.taken() == taken
    monkeypatch.setattr(notifier, "_database", recorder.url)
    notifier.notify()
    assert manager.taken() == [OTHER, ALERT], "the new one, and an end"
    notifier.close()


@pytest.mark.parametrize("ends_by", ["review", "file"])
def test_an_alert_of_a_database_that_was_set_aside_lasts_until_it_is_closed_or_the_file_is_removed(
    console: ConsoleRig, recorder: Rig, monkeypatch: pytest.MonkeyPatch, ends_by: str
) -> None:
    manager, clock = Manager(), Clock(0.0)
    notifier = AlertNotifier("http://x", recorder.url, reviews=console.context.settings.store, clock_s=clock)
    monkeypatch.setattr(notifier, "_client", manager)
    raise_alert(recorder)
    notifier.notify()
    assert manager.taken() == [ALERT]
    with recorder.engine.begin() as connection:  # as in the database that replaces it
        connection.execute(delete(alerts))
    file = Path(recorder.engine.url.database or "")
    aside = file.with_name(f"{file.name}.damaged-{time.time_ns() // 10**6}")
    aside.touch()
    clock.now_s += REPEAT_S
    notifier.notify()
    assert all(datetime.fromisoformat(each["endsAt"]) > datetime.now(UTC) for each in manager.posted)
    assert manager.taken() == [ALERT]
    if ends_by == "review":
        console.context.store.review([ALERT], "closed", "anna")
    else:
        aside.unlink()
    notifier.notify()
    assert manager.taken() == [ALERT], "its end"
    notifier.close()
