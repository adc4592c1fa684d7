"""Thumbnails of alerts in the database: sealed, opened by console and recorder, and plain from an earlier release."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update
from structlog.testing import capture_logs

from consumers.database.alerts import alert_row, stored_alert
from consumers.database.tables import alerts
from schemas.keys.keys import KeyRing
from schemas.keys.sealing import PreviewBox
from schemas.pointillist_pb2 import Alert, Range
from tests.consumers.console_rig import CONSOLE_KEYS, ConsoleRig
from tests.consumers.recorder_rig import BOOT, CAMERA, PNG, RECORDER_KEYS, Rig, picture
from tests.consumers.test_sightings import cars, want
from tests.consumers.test_store import ATTACK

OTHERS = KeyRing(b"the secret of another fleet")
ALERT = Alert(alert_id="ab" * 16, camera_id=CAMERA, boot_id=BOOT, frames=Range(first=1, last=9), thumbnail=PNG)
SIGNATURE = b"\x89PNG"


def no_key() -> PreviewBox:
    """The key of a reader that needs none."""
    pytest.fail("a plain thumbnail needs no key")


def in_row(alert: Alert = ALERT) -> bytes:
    message = alert_row(alert, 0, RECORDER_KEYS.previews)["message"]
    assert isinstance(message, bytes)
    return message


def the_only(recorder: Rig) -> tuple[str, bytes]:
    """The id and the message of the only alert in the database."""
    with recorder.engine.begin() as connection:
        ((alert_id, message),) = connection.execute(select(alerts.c.alert_id, alerts.c.message))
    return alert_id, message


@pytest.mark.parametrize("kind", ["backdoor", "sighting"])
def test_the_database_shows_no_thumbnail_and_the_console_does(console: ConsoleRig, recorder: Rig, kind: str) -> None:
    if kind == "backdoor":
        raised = recorder.verdicts(ATTACK).alerts
    else:
        want(recorder)
        raised = recorder.verdicts(cars(0, 5, preview=picture("JPEG"))).sightings
    alert_id, message = the_only(recorder)
    assert [(alert.alert_id, alert.thumbnail[:4]) for alert in raised] == [(alert_id, SIGNATURE)]
    assert Alert.FromString(message).thumbnail
    assert SIGNATURE not in message
    answer = console.browser().get(f"/alerts/{alert_id}.png")
    assert (answer.status_code, answer.content) == (200, raised[0].thumbnail)


def test_a_row_keeps_all_of_an_alert_and_leaves_the_alert_as_it_is() -> None:
    assert stored_alert(in_row(), lambda: CONSOLE_KEYS.previews) == ALERT
    assert ALERT.thumbnail == PNG


def test_a_row_of_an_earlier_release_is_read_without_a_key() -> None:
    assert stored_alert(ALERT.SerializeToString(), no_key) == ALERT
    empty = Alert(alert_id="cd" * 16, camera_id=CAMERA)
    assert stored_alert(in_row(empty), no_key) == empty


def test_a_thumbnail_of_another_alert_another_fleet_or_a_damaged_one_is_left_out() -> None:
    moved, damaged = Alert.FromString(in_row()), Alert.FromString(in_row())
    moved.frames.last += 1
    damaged.thumbnail = damaged.thumbnail[:-1] + bytes([damaged.thumbnail[-1] ^ 1])
    with capture_logs() as logs:
        for message, keys in (
            (moved.SerializeToString(), CONSOLE_KEYS),
            (damaged.SerializeToString(), CONSOLE_KEYS),
            (in_row(), OTHERS),
        ):
            read = stored_alert(message, lambda keys=keys: keys.previews)  # type: ignore[misc]  # mypy infers no default
            assert (read.alert_id, read.thumbnail) == (ALERT.alert_id, b"")
    assert [line["event"] for line in logs] == ["thumbnail_not_opened"] * 3


def test_a_page_without_the_picture_of_an_alert_says_that_it_is_missing(console: ConsoleRig, recorder: Rig) -> None:
    recorder.verdicts(ATTACK)
    alert_id, message = the_only(recorder)
    damaged = Alert.FromString(message)
    damaged.thumbnail = b"?" + damaged.thumbnail
    with recorder.engine.begin() as connection:
        connection.execute(update(alerts).values(message=damaged.SerializeToString()))
    answer = console.browser().get(f"/alerts/{alert_id}.png")
    assert (answer.status_code, answer.json()) == (404, {"error": "the picture of this alert is missing"})
    assert console.browser().get(f"/alerts/{alert_id}").status_code == 200
