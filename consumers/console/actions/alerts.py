"""Search for alerts, and their review: the state of their episodes, and comments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from sqlalchemy import Connection, select
from starlette.requests import Request

from consumers.cameras.episodes import OPEN, STATES, Episode
from consumers.console.access.refusal import RefusedActionError
from consumers.console.access.sight import ALL, Sight, site_of
from consumers.console.access.sites import require
from consumers.console.context import ConsoleContext
from consumers.console.data.alerts import AlertRow, read_episodes
from consumers.database.tables import alerts

SHOWN: Final = 50
"""Maximum number of backdoor alerts and of sightings in a result, and of episodes that are reviewed at once."""
UNKNOWN: Final = "alert: expected the id of a stored alert"
ALERT_ID: Final = re.compile(r"[0-9a-f]{32}")


async def newest_episodes(
    context: ConsoleContext, camera: str, sight: Sight = ALL
) -> list[tuple[Episode, list[AlertRow]]]:
    """Return the episodes of the newest alerts of one camera or all of these sites, the latest first."""
    reviews = await context.read(context.store.reviewed)
    return await context.read_recorded(read_episodes, reviews, context.published_ms(), camera, sight)


async def find_alerts(context: ConsoleContext, state: str, camera: str, sight: Sight) -> list[AlertRow]:
    """Return alerts of these sites whose episode is in a state (all states if empty).

    At most `SHOWN` backdoor alerts and `SHOWN` sightings: first the newest of each episode, open episodes before
    acknowledged and closed ones, then further alerts, the newest first.
    """
    newest = await newest_episodes(context, camera, sight)
    newest.sort(key=lambda each: STATES.index(each[0].state))
    mine = [raised for episode, raised in newest if state in ("", episode.state)]
    further = sorted((each for raised in mine for each in raised[1:]), key=lambda each: -each.raised_ms)
    found = [*(raised[0] for raised in mine), *further]
    backdoors = [each for each in found if not each.wanted][:SHOWN]
    sightings = [each for each in found if each.wanted][:SHOWN]
    return sorted([*backdoors, *sightings], key=lambda each: (STATES.index(each.state), -each.raised_ms))


def _check_shown(alert_id: str, episode: Episode | None, shown_ms: int | None) -> None:
    """Raise RefusedActionError if the page, whose last alert of the episode is of `shown_ms`, lacks a later one."""
    if episode is not None and shown_ms is not None and episode.last_ms > shown_ms:
        raise RefusedActionError(
            f"{alert_id}: another alert of this episode was raised after the page was loaded. Reload the page, and "
            "decide again.",
            409,
        )


async def _episodes_of(context: ConsoleContext, cameras: Iterable[str]) -> dict[str, Episode]:
    """Return the episode of each of the newest alerts of these cameras. All decisions are read once."""
    reviews = await context.read(context.store.reviewed)
    found: dict[str, Episode] = {}
    for camera in dict.fromkeys(cameras):
        newest = await context.read_recorded(read_episodes, reviews, context.published_ms(), camera)
        found |= {alert_id: episode for episode, _ in newest for alert_id in episode.alert_ids}
    return found


async def review(
    context: ConsoleContext,
    who: str,
    cameras: Mapping[str, str],
    state: str | None,
    text: str,
    shown_ms: Mapping[str, int | None] = MappingProxyType({}),
) -> None:
    """Set the state of the episodes of alerts, if one is given, and add a comment to each, if there is one.

    `cameras` and `shown_ms` have the camera of each alert, and the time of its episode's last alert on the page. Raises
    RefusedActionError before the first change for an unknown state, and for an episode with a later alert.
    """
    if state is not None and state not in STATES:
        raise RefusedActionError(f"state: expected {', '.join(STATES)}, got {state[:40]!r}", 400)
    found = await _episodes_of(context, cameras.values()) if state is not None else {}
    for alert_id in cameras:
        _check_shown(alert_id, found.get(alert_id), shown_ms.get(alert_id))
    for alert_id, camera in cameras.items():
        if text.strip():
            await context.write(context.store.comment, alert_id, who, text.strip())
        if state is not None:
            mine = found[alert_id].alert_ids if alert_id in found else [alert_id]
            made = await context.write(context.store.review, mine, state, who)
            for each in mine:
                context.reviews.pop(each, None)
                if state != OPEN:
                    context.reviews[each] = made
            await context.note(who, "alert", alert_id, state, "done", site_of(camera))


async def camera_of(context: ConsoleContext, request: Request, alert_id: str) -> str:
    """Return the camera of an alert. Raises RefusedActionError for an unknown one, or one of another site."""
    query = select(alerts.c.camera).where(alerts.c.alert_id == alert_id)
    camera: str | None = await context.read_recorded(Connection.scalar, query) if ALERT_ID.fullmatch(alert_id) else None
    require(request, camera, UNKNOWN)
    assert camera is not None
    return camera
