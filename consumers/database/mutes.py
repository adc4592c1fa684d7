"""Mutes: cameras and alerts of which nobody is notified until a time, each with its reason.

A mute ends by itself. It changes no evidence, state or review: it only stops notifications and counts.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from sqlalchemy import Connection, delete, exists, inspect, select

from consumers.database.tables import alerts, mutes
from consumers.database.user_rows import of_site, replace_row
from schemas.errors import ConfigError
from schemas.identity import camera_id

MOST_MUTES: Final = 1_000
"""Maximum number of mutes in force at a site."""
LONGEST_REASON: Final = 500
_LENGTH: Final = re.compile(r"([1-9][0-9]{0,3})([mhd])")
_UNITS: Final = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LONGEST_MS: Final = 30 * _UNITS["d"]
ALERT_ID: Final = re.compile(r"[0-9a-f]{32}")


class Mute(NamedTuple):
    """One mute in force."""

    subject: str
    """A camera as `site/camera`, or the id of an alert."""
    until_ms: int
    """Its end, Unix time in milliseconds."""
    reason: str
    who: str
    """The user."""
    at_ms: int
    """Time of the decision, Unix time in milliseconds."""

    @property
    def is_of_camera(self) -> bool:
        """Whether it mutes a camera with all its alerts and rules, not a single alert."""
        return "/" in self.subject


Mutes = Mapping[str, Mute]
"""Mutes in force by their subject."""


def new_mute(subject: str, length: str, reason: str, who: str, now_ms: int) -> Mute:
    """Return a mute from `now_ms` on for a `length` such as `30m`, `2h` or `1d`, at most 30 days.

    Raises ConfigError for a subject, length or reason of another form.
    """
    found = _LENGTH.fullmatch(length)
    length_ms = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < length_ms <= _LONGEST_MS:
        raise ConfigError(
            f"mute: expected a length such as 30m, 2h or 1d, at most 30d, got {length[:40]!r}. Correct it."
        )
    if not reason.strip().isprintable():
        raise ConfigError("mute: expected a reason in one line of printable text, got other characters. Remove them.")
    if not reason.strip():
        raise ConfigError("mute: expected a reason, got none. Write one for the people who look after the alerts.")
    if not ALERT_ID.fullmatch(subject):
        camera_id(subject)
    return Mute(subject, now_ms + length_ms, reason.strip()[:LONGEST_REASON], who, now_ms)


def save_mute(connection: Connection, mute: Mute) -> None:
    """Insert a mute or replace the subject's earlier one, and delete expired ones.

    Raises ConfigError for an alert that is not stored, and beyond `MOST_MUTES`.
    """
    camera: str | None = mute.subject
    if not mute.is_of_camera:
        camera = connection.scalar(select(alerts.c.camera).where(alerts.c.alert_id == mute.subject))
    if camera is None:
        raise ConfigError(f"mute: expected the id of a stored alert, got {mute.subject}. Correct it.")
    connection.execute(delete(mutes).where(mutes.c.until_ms <= mute.at_ms))
    of_its_alerts = exists().where(alerts.c.alert_id == mutes.c.subject, of_site(alerts.c.camera, camera))
    at_site = of_site(mutes.c.subject, camera) | of_its_alerts
    replace_row(connection, mutes, mute._asdict(), MOST_MUTES, "mute", at_site)


def end_mute(connection: Connection, subject: str) -> None:
    """Delete the mute of a subject. Raises ConfigError if there is none."""
    if not connection.execute(delete(mutes).where(mutes.c.subject == subject)).rowcount:
        raise ConfigError(f"mute: expected a camera or an alert that is muted, got {subject}. List the mutes.")


def read_mutes(connection: Connection, now_ms: int) -> dict[str, Mute]:
    """Return the mutes in force at `now_ms`, by subject."""
    if not inspect(connection).has_table(mutes.name):  # the recorder makes the table at its start
        return {}
    columns = [mutes.c[name] for name in Mute._fields]
    found = connection.execute(select(*columns).where(mutes.c.until_ms > now_ms).order_by(mutes.c.until_ms))
    return {row.subject: Mute(*row) for row in found}


def mute_of(found: Mutes, camera: str, alert_ids: Collection[str] = ()) -> Mute | None:
    """Return the mute that ends last among those of a camera and of the alerts of one episode; None without any."""
    candidates = [found[each] for each in (camera, *alert_ids) if each in found]
    return max(candidates, key=lambda each: each.until_ms, default=None)
