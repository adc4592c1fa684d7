"""The alerts that nobody has closed, and the cameras that are muted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import CTE, ColumnElement, Connection, Row, func, select, true

from consumers.cameras.episodes import CLOSED, AlertSummary, Episode, episodes
from consumers.database.console_store import Reviews
from consumers.database.mutes import Mute, Mutes, mute_of, read_mutes
from consumers.database.tables import alerts
from schemas.batched import batched
from schemas.clock import unix_ms

HOLD_S: Final = 300.0
"""Seconds for which a sighting that has ended still counts as lasting, for notifications."""
BACKDOORS: Final = alerts.c.wanted == ""
SIGHTINGS: Final = alerts.c.wanted != ""
KINDS: Final = (BACKDOORS, SIGHTINGS)
"""Conditions of backdoor alerts and of sightings. Each kind has a limit of its own, so that neither hides the other."""
_NEWEST: Final = 1_000
"""Number of alerts of each kind that are read, see `newest_rows`; sightings that last come in addition."""
_OF_EACH: Final = 10
"""Number of backdoor alerts of each camera that are read in any case."""
_ALL: Final = true()
_FOUND: Final = tuple(alerts.c[name] for name in AlertSummary._fields)


def newest_alerts(connection: Connection) -> list[AlertSummary]:
    """Return the newest alerts of all cameras and of each, all sightings that last, and those of muted episodes."""
    muted = (AlertSummary._make(row) for row in muted_rows(connection, _FOUND))
    return list(dict.fromkeys([*_newest(connection, BACKDOORS), *_sightings(connection, unix_ms()), *muted]))


def newest_rows(
    connection: Connection,
    columns: Sequence[ColumnElement[Any]],
    kind: ColumnElement[bool],
    number: int,
    is_included: ColumnElement[bool] = _ALL,
) -> list[Row[Any]]:
    """Return the newest `number` alerts of a kind, and the newest `_OF_EACH` backdoor alerts of each camera.

    So a camera that raises alerts all the time hides no backdoor alert of another one. `is_included` is a condition on
    the camera.
    """
    query = select(*columns).where(kind).order_by(alerts.c.raised_ms.desc())
    found = list(connection.execute(query.where(is_included).limit(number)))
    if kind is not BACKDOORS or len(found) < number:
        return found
    named = _cameras(is_included)
    mine = alerts.alias()
    newest = select(mine.c.raised_ms).where(mine.c.wanted == "", mine.c.camera == named.c.camera)
    last = newest.order_by(mine.c.raised_ms.desc()).offset(_OF_EACH - 1).limit(1).scalar_subquery()
    of_each = query.join(named, named.c.camera == alerts.c.camera).where(alerts.c.raised_ms >= func.coalesce(last, 0))
    return list(dict.fromkeys([*found, *connection.execute(of_each.limit(_OF_EACH * number))]))


def muted_rows(
    connection: Connection, columns: Sequence[ColumnElement[Any]], is_included: ColumnElement[bool] = _ALL
) -> list[Row[Any]]:
    """Return each muted alert, and the later ones of its camera and cause, so that its episode stays muted.

    An alert may appear twice. Only the later ones have a limit: one noisy episode keeps no other from its mute.
    """
    ids = [each.subject for each in read_mutes(connection, unix_ms()).values() if not each.is_of_camera]
    muted = alerts.alias()
    is_later = (
        (alerts.c.camera == muted.c.camera)
        & (alerts.c.wanted == muted.c.wanted)
        & (alerts.c.raised_ms >= muted.c.raised_ms)
    )
    query = select(*columns).where(is_included)
    later = query.distinct().join(muted, is_later).order_by(alerts.c.raised_ms).limit(_OF_EACH * _NEWEST)
    found: list[Row[Any]] = []
    for some in batched(ids):
        found += connection.execute(query.where(alerts.c.alert_id.in_(some)))
        found += connection.execute(later.where(muted.c.alert_id.in_(some)))
    return found


def _cameras(is_included: ColumnElement[bool]) -> CTE:
    """Return the cameras with backdoor alerts. The recursion reads one row of the index for each of them."""
    first = select(func.min(alerts.c.camera).label("camera")).where(BACKDOORS, is_included)
    named = first.cte("named", recursive=True)
    following = first.where(alerts.c.camera > named.c.camera).correlate(named).scalar_subquery()
    return named.union_all(select(following).select_from(named).where(named.c.camera.is_not(None)))


def _newest(connection: Connection, kind: ColumnElement[bool]) -> list[AlertSummary]:
    return [AlertSummary._make(row) for row in newest_rows(connection, _FOUND, kind, _NEWEST)]


def _sightings(connection: Connection, now_ms: int) -> list[AlertSummary]:
    """Return the newest sightings, then those that last: each camera has at most one without an end for each class."""
    ended = alerts.c.ended_ms
    found = _newest(connection, SIGHTINGS)
    for lasting in (ended == 0, ended > now_ms - round(1000 * HOLD_S)):  # SQLite uses no partial index for OR
        found += (AlertSummary(*row) for row in connection.execute(select(*_FOUND).where(SIGHTINGS, lasting)))
    return list(dict.fromkeys(found))


def is_lasting(found: AlertSummary, now_ms: int) -> bool:
    """Return whether an alert lasts for notifications: a sighting ends `HOLD_S` after its last agreeing frame."""
    return not found.ended_ms or found.ended_ms > now_ms - 1000 * HOLD_S


def lasting_sightings(connection: Connection, now_ms: int) -> dict[str, tuple[str, ...]]:
    """Return the classes and groups of the sightings that last, by camera, each in alphabetical order."""
    seen: dict[str, set[str]] = {}
    for each in _sightings(connection, now_ms):
        if is_lasting(each, now_ms):
            seen.setdefault(each.camera, set()).add(each.wanted)
    return {camera: tuple(sorted(names)) for camera, names in seen.items()}


def open_episodes(newest: Sequence[AlertSummary], reviews: Reviews, published_ms: Sequence[int] = ()) -> list[Episode]:
    """Return the episodes of the `newest` alerts that are not closed, the latest first."""
    return [each for each in episodes(newest, reviews, published_ms) if each.state != CLOSED]


def muted_cameras(standing: Sequence[Episode], mutes: Mutes) -> dict[str, Mute]:
    """Return the mute of each camera that is muted, or whose `standing` backdoor episodes are all muted.

    If several episodes are muted, the mute that ends first counts.
    """
    found = {each.subject: each for each in mutes.values() if each.is_of_camera}
    by_camera: dict[str, list[Mute | None]] = {}
    for episode in standing:
        if not episode.wanted and episode.camera not in found:
            by_camera.setdefault(episode.camera, []).append(mute_of(mutes, episode.camera, episode.alert_ids))
    for camera, each in by_camera.items():
        muted = [mute for mute in each if mute is not None]
        if len(muted) == len(each):
            found[camera] = min(muted, key=lambda mute: mute.until_ms)
    return found
