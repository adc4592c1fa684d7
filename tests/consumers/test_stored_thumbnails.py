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
from tests.consumers.test_sightings import cars, save_sighting_rule
from tests.consumers.test_store import ATTACK

OTHERS = KeyRing(b"the secret of another fleet")
ALERT = Alert(alert_id="ab" * 16, camera_id=CAMERA, boot_id=BOOT, frames=Range(first=1, last=9), thumbnail=PNG)
SIGNATURE = b"\x89PNG"


def no_key() -> PreviewBox:
    """Fail the test: a plain thumbnail is read without a key."""
    pytest.fail("a plain thumbnail needs no key")


def row_message(alert: Alert = ALERT) -> bytes:
    message = alert_row(alert, 0, RECORDER_KEYS.previews)["message"]
    assert isinstance(message, bytes)
    return message


def only_alert(recorder: Rig) -> tuple[str, bytes]:
    """Return the id and the message of the only alert in the database."""
    with recorder.engine.begin() as connection:
        ((alert_id, message),) = connection.execute(select(alerts.c.alert_id, alerts.c.message))
    return alert_id, message


@pytest.mark.parametrize("kind", ["backdoor", "sighting"])
def test_thumbnails_are_encrypted_in_the_database_and_shown_by_the_console(
    console: ConsoleRig, recorder: Rig, kind: str
) -> None:
    if kind == "backdoor":
        raised = recorder.verdicts(ATTACK).alerts
    else:
        save_sighting_rule(recorder)
        raised = recorder.verdicts(cars(0, 5, preview=picture("JPEG"))).sightings
    alert_id, message = only_alert(recorder)
    assert [(alert.alert_id, alert.thumbnail[:4]) for alert in raised] == [(alert_id, SIGNATURE)]
    assert Alert.FromString(message).thumbnail
    assert SIGNATURE not in message
    answer = console.browser().get(f"/alerts/{alert_id}.png")
    assert (answer.status_code, answer.content) == (200, raised[0].thumbnail)


def test_a_row_contains_all_fields_of_an_alert_and_does_not_change_the_alert() -> None:
    assert stored_alert(row_message(), lambda: CONSOLE_KEYS.previews) == ALERT
    assert ALERT.thumbnail == PNG


def test_a_row_of_an_earlier_release_is_read_without_a_key() -> None:
    assert stored_alert(ALERT.SerializeToString(), no_key) == ALERT
    empty = Alert(alert_id="cd" * 16, camera_id=CAMERA)
    assert stored_alert(row_message(empty), no_key) == empty


def test_a_damaged_thumbnail_or_one_of_another_alert_or_fleet_is_left_out() -> None:
    moved, damaged = Alert.FromString(row_message()), Alert.FromString(row_message())
    moved.frames.last += 1
    damaged.thumbnail = damaged.thumbnail[:-1] + bytes([damaged.thumbnail[-1] ^ 1])
    with capture_logs() as logs:
        for message, keys in (
            (moved.SerializeToString(), CONSOLE_KEYS),
            (damaged.SerializeToString(), CONSOLE_KEYS),
            (row_message(), OTHERS),
        ):
            read = stored_alert(message, lambda keys=keys: keys.previews)  # type: ignore[misc]  # mypy infers no default
            assert (read.alert_id, read.thumbnail) == (ALERT.alert_id, b"")
    assert [line["event"] for line in logs] == ["thumbnail_not_opened"] * 3


def test_the_request_for_a_damaged_thumbnail_is_answered_with_status_404(console: ConsoleRig, recorder: Rig) -> None:
    recorder.verdicts(ATTACK)
    alert_id, message = only_alert(recorder)
    damaged = Alert.FromString(message)
    damaged.thumbnail = b"?" + damaged.thumbnail
    with recorder.engine.begin() as connection:
        connection.execute(update(alerts).values(message=damaged.SerializeToString()))
    answer = console.browser().get(f"/alerts/{alert_id}.png")
    assert (answer.status_code, answer.json()) == (404, {"error": "the picture of this alert is missing"})
    assert console.browser().get(f"/alerts/{alert_id}").status_code == 200
