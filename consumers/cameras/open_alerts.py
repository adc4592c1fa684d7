"""The alerts that nobody has closed, and the cameras that are muted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import CTE, ColumnElement, Connection, Row, Text, case, func, literal, select, true

from consumers.cameras.episodes import CLOSED, AlertSummary, Episode, episodes
from consumers.database.console_store import Reviews
from consumers.database.mutes import Mute, Mutes, mute_of, read_mutes
from consumers.database.tables import alerts
from schemas.batched import batched
from schemas.clock import unix_ms

HOLD_S: Final = 300.0
"""Seconds for which a sighting that has ended still counts as lasting, for notifications."""
_HOLD_MS: Final = round(1000 * HOLD_S)
BACKDOORS: Final = alerts.c.wanted == ""
SIGHTINGS: Final = alerts.c.wanted != ""
KINDS: Final = (BACKDOORS, SIGHTINGS)
"""Conditions of backdoor alerts and of sightings. Each kind has a limit of its own, so that neither hides the other."""
_NEWEST: Final = 1_000
"""Number of alerts of each kind that are read, see `newest_rows`; sightings that last come in addition."""
_OF_EACH: Final = 10
"""Number of backdoor alerts of each camera that are read in any case. Of its sightings of each class, it is one."""
_ALL: Final = true()
_FOUND: Final = tuple(alerts.c[name] for name in AlertSummary._fields)


def newest_alerts(connection: Connection) -> list[AlertSummary]:
    """Return the newest alerts of all cameras and of each, all sightings that last, and those of muted episodes."""
    found = [row for kind in KINDS for row in newest_rows(connection, _FOUND, kind, _NEWEST)]
    found += muted_rows(connection, _FOUND)
    summaries = map(AlertSummary._make, found)
    return list(dict.fromkeys([*summaries, *_lasting(connection, unix_ms())]))


def newest_rows(
    connection: Connection,
    columns: Sequence[ColumnElement[Any]],
    kind: ColumnElement[bool],
    number: int,
    is_included: ColumnElement[bool] = _ALL,
) -> list[Row[Any]]:
    """Return the newest `number` alerts of a kind, and the newest ones of each camera and cause.

    These are `_OF_EACH` backdoor alerts, or one sighting of each class: a camera that raises alerts all the time hides
    no backdoor alert and no open sighting of another one. `is_included` is a condition on the camera.
    """
    query = select(*columns).where(kind).order_by(alerts.c.raised_ms.desc())
    found = list(connection.execute(query.where(is_included).limit(number)))
    if len(found) < number:
        return found
    causes = _causes(is_included)
    mine = alerts.alias()
    newest = select(mine.c.raised_ms).where(mine.c.camera == causes.c.camera, mine.c.wanted == causes.c.wanted)
    least = _OF_EACH if kind is BACKDOORS else 1
    last = newest.order_by(mine.c.raised_ms.desc()).offset(least - 1).limit(1).scalar_subquery()
    is_of_cause = (alerts.c.camera == causes.c.camera) & (alerts.c.wanted == causes.c.wanted)
    of_each = query.join(causes, is_of_cause).where(alerts.c.raised_ms >= func.coalesce(last, 0))
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


def _causes(is_included: ColumnElement[bool]) -> CTE:
    """Return each camera with alerts, together with the empty text and with each class or group of its sightings.

    The recursion reads one row of the index for each of them. The class of a camera's last row is NULL: the next row
    is of another camera. The camera of the very last row is NULL.
    """
    camera = select(func.min(alerts.c.camera).label("camera")).where(is_included)
    none = literal("", Text)
    causes = camera.add_columns(none.label("wanted")).cte("causes", recursive=True)
    is_last = causes.c.wanted.is_(None)
    next_camera = camera.where(alerts.c.camera > causes.c.camera).correlate(causes).scalar_subquery()
    wanted = select(func.min(alerts.c.wanted)).where(alerts.c.camera == causes.c.camera)
    next_wanted = wanted.where(alerts.c.wanted > causes.c.wanted).correlate(causes).scalar_subquery()
    following = select(
        case((is_last, next_camera), else_=causes.c.camera), case((is_last, none), else_=next_wanted)
    ).where(causes.c.camera.is_not(None))
    return causes.union_all(following)


def _lasting(connection: Connection, now_ms: int) -> list[AlertSummary]:
    """Return the sightings that last. Each camera has at most one without an end for each class."""
    ended, found = alerts.c.ended_ms, list[AlertSummary]()
    held = ended.between(now_ms - _HOLD_MS + 1, now_ms + _HOLD_MS)
    for lasting in (ended == 0, held):  # SQLite uses no partial index for OR
        found += (AlertSummary(*row) for row in connection.execute(select(*_FOUND).where(SIGHTINGS, lasting)))
    return found


def is_lasting(found: AlertSummary, now_ms: int) -> bool:
    """Return whether an alert lasts for notifications: a sighting ends `HOLD_S` after its last agreeing frame.

    An end that is further ahead was written before the clock was set back.
    """
    return not found.ended_ms or -_HOLD_MS <= now_ms - found.ended_ms < _HOLD_MS


def lasting_sightings(connection: Connection, now_ms: int) -> dict[str, tuple[str, ...]]:
    """Return the classes and groups of the sightings that last, by camera, each in alphabetical order."""
    seen: dict[str, set[str]] = {}
    for each in _lasting(connection, now_ms):
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
