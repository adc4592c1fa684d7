"""The backdoor alerts that nobody has closed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, select

from consumers.cameras.episodes import CLOSED, Episode, Found, Reviews, episodes
from consumers.database.tables import alerts

_NEWEST: Final = 1_000
"""Alerts that are looked at, the newest."""


def newest_alerts(connection: Connection) -> list[Found]:
    """Return the newest alerts of all cameras."""
    columns = (alerts.c.camera, alerts.c.alert_id, alerts.c.raised_ms)
    newest = select(*columns).order_by(alerts.c.raised_ms.desc()).limit(_NEWEST)
    return [Found(*row) for row in connection.execute(newest)]


def open_episodes(newest: Sequence[Found], reviews: Reviews, published_ms: Sequence[int] = ()) -> list[Episode]:
    """Return the episodes of the `newest` alerts that are not closed, the latest first."""
    return [each for each in episodes(newest, reviews, published_ms) if each.state != CLOSED]
