"""The alerts page: open, acknowledged and closed alerts, and the frames in quarantine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, select
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from consumers.cameras.episodes import (
    ACKNOWLEDGED,
    CLOSED,
    OPEN,
    STATES,
    Episode,
)
from consumers.console.access.error_response import error_response
from consumers.console.access.gate import form_of, session_of
from consumers.console.access.rights import EVERYWHERE, GuardedRoute, Right, RightScope
from consumers.console.access.sight import site_of
from consumers.console.access.sites import may, sight_of
from consumers.console.actions.alerts import ALERT_ID, SHOWN, camera_of, newest_episodes, review
from consumers.console.actions.fleet import page_of
from consumers.console.actions.jobs import job_choices
from consumers.console.actions.mutes import LENGTHS, mute
from consumers.console.context import ConsoleContext, unless_away
from consumers.console.data.alerts import NEWEST, AlertRow, summarise_episodes
from consumers.console.data.quarantined import cameras_of, frame_of
from consumers.database.alerts import stored_alert
from consumers.database.mutes import mute_of, read_mutes
from consumers.database.tables import alerts, quarantine
from schemas.clock import unix_ms

VERBS: Final = {OPEN: "Reopen", ACKNOWLEDGED: "Acknowledge", CLOSED: "Close"}
ON_PAGE: Final = 15
"""Episodes of one page: more would be too long for a phone."""
GALLERY: Final = 60
_LONGEST: Final = 200
_FILE: Final = re.compile(r"[0-9a-f]{16}-[0-9]{1,16}")
PICTURE_CACHED: Final = {"cache-control": "private, max-age=86400, immutable", "vary": "cookie"}
"""Headers of pictures that never change: a browser keeps them for the present login alone."""


def alert_routes(context: ConsoleContext) -> list[GuardedRoute]:
    """Return the routes of the page."""
    return [
        GuardedRoute("/alerts", partial(_page, context), reach=RightScope.PART),
        GuardedRoute("/alerts", partial(_review_many, context), "POST", Right.OPERATOR, RightScope.PART),
        GuardedRoute("/alerts/{alert_id}.png", partial(_thumbnail, context), reach=RightScope.PART),
        GuardedRoute("/alerts/{alert_id}", partial(_alert_page, context), reach=RightScope.PART),
        GuardedRoute("/alerts/{alert_id}", partial(_review, context), "POST", Right.OPERATOR, RightScope.PART),
        GuardedRoute("/quarantine", partial(_gallery, context), reach=RightScope.PART),
        GuardedRoute("/quarantine/{site}/{camera}/{name}.png", partial(_flagged, context)),
    ]


async def _page(context: ConsoleContext, request: Request) -> Response:
    state, camera = request.query_params.get("state", OPEN), request.query_params.get("camera", "")[:_LONGEST]
    state = state if state in STATES else OPEN
    newest, no_records = await unless_away(newest_episodes(context, camera, sight_of(request)), [])
    mutes, _ = await unless_away(context.read_recorded(read_mutes, unix_ms()), {})
    found = [each for each in newest if each[0].state == state]
    found.sort(key=lambda each: mute_of(mutes, each[0].camera, each[0].alert_ids) is not None)
    page_count = max(1, -(-len(found) // ON_PAGE))
    page = min(max(1, page_of(request)), page_count)
    shown = found[ON_PAGE * (page - 1) : ON_PAGE * page]
    counts = Counter(each.state for each, _ in newest)
    elsewhere = [each for site in context.fleet.sites(sight_of(request)) for each in site.alerts]
    elsewhere = [each for each in elsewhere if each.state == state and camera in ("", each.camera)]
    elsewhere = sorted(elsewhere, key=lambda each: (bool(each.wanted), -each.raised_ms))[:ON_PAGE]  # sightings last
    return await _render_episodes(
        context, request, shown, state=state, camera=camera, alert_id="", counts=counts, page=page,
        page_count=page_count, elsewhere=elsewhere, no_records=no_records,
    )  # fmt: skip


async def _alert_page(context: ConsoleContext, request: Request) -> Response:
    """Show the episode of one alert, whatever its state."""
    alert_id = request.path_params["alert_id"]
    camera = await camera_of(context, request, alert_id)
    mine = [
        (episode, sorted(raised, key=lambda each: each.alert_id != alert_id))
        for episode, raised in await newest_episodes(context, camera)
        if alert_id in episode.alert_ids
    ]
    if not mine:
        return error_response(404, f"alert: expected one of the newest {NEWEST} of its camera, got an older one")
    return await _render_episodes(
        context, request, mine, state=mine[0][0].state, camera=camera, alert_id=alert_id, counts={}, page=1,
        page_count=1, elsewhere=[],
    )  # fmt: skip


async def _render_episodes(
    context: ConsoleContext, request: Request, found: Sequence[tuple[Episode, list[AlertRow]]], **values: Any
) -> Response:
    """Render these episodes with their comments; the template needs `values` besides."""
    shown = await context.read_recorded(summarise_episodes, found) if found else []
    stored = await context.read(
        context.store.read_comments, [alert_id for each in shown for alert_id in each.episode.alert_ids]
    )
    comments = {
        each.alert.alert_id: sorted(
            (one for alert_id in each.episode.alert_ids for one in stored[alert_id]), key=lambda one: one["at_ms"]
        )
        for each in shown
    }
    return context.page(
        request, "alerts.html", shown=shown, comments=comments, states=STATES, verbs=VERBS, lengths=LENGTHS, **values
    )


async def _thumbnail(context: ConsoleContext, request: Request) -> Response:
    alert_id = request.path_params["alert_id"]
    await camera_of(context, request, alert_id)

    def read(connection: Connection) -> bytes:
        message = connection.scalar(select(alerts.c.message).where(alerts.c.alert_id == alert_id))
        try:
            return stored_alert(message or b"", lambda: context.keys.previews).thumbnail
        except DecodeError:
            return b""

    picture = await context.read_recorded(read)
    if not picture:
        return error_response(404, "the picture of this alert is missing")
    return Response(picture, media_type="image/png", headers=PICTURE_CACHED)


async def _review(context: ConsoleContext, request: Request) -> Response:
    return await _change(context, request, [request.path_params["alert_id"]])


async def _review_many(context: ConsoleContext, request: Request) -> Response:
    """Set the state of all selected episodes, or mute them. The value of each is the time of its last shown alert."""
    return await _change(context, request, [name for name in form_of(request) if ALERT_ID.fullmatch(name)][:SHOWN])


async def _change(context: ConsoleContext, request: Request, chosen: Sequence[str]) -> Response:
    """Mute alerts, or set the state of their episodes and comment on them. Return to the page with a redirect."""
    fields, who = form_of(request), session_of(request).name
    cameras = [await camera_of(context, request, alert_id) for alert_id in chosen]  # before the first change
    if "mute" in fields:
        sites = dict(zip(chosen, map(site_of, cameras), strict=True))
        await mute(context, request, sites, fields["mute"], fields.get("reason", ""))
    else:
        shown_ms = {alert_id: _time_of(fields.get(alert_id) or fields.get("shown_ms", "")) for alert_id in chosen}
        named = dict(zip(chosen, cameras, strict=True))
        await review(context, who, named, fields.get("state"), fields.get("text", ""), shown_ms)
    return RedirectResponse(origin_of(fields), 303)


def _time_of(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None


def origin_of(fields: Mapping[str, str]) -> str:
    """Return the address of the page of alerts whose form has sent these fields."""
    back, camera = fields.get("back", OPEN), fields.get("camera", "")[:_LONGEST]
    shown = {"state": back if back in STATES else OPEN} | ({"camera": camera} if camera else {})
    return f"/alerts?{urlencode(shown)}"


async def _gallery(context: ConsoleContext, request: Request) -> Response:
    sight = sight_of(request)

    def read(connection: Connection) -> tuple[list[tuple[str, int]], Mapping[str, int]]:
        mine = select(quarantine.c.name, quarantine.c.at_ms).where(sight.where(quarantine.c.name))
        newest = mine.order_by(quarantine.c.at_ms.desc()).limit(GALLERY)
        held = [(name, at_ms) for name, at_ms in connection.execute(newest)]
        return held, cameras_of(connection, sight)

    (held, cameras), no_records = await unless_away(context.read_recorded(read), ([], {}))
    return context.page(
        request,
        "quarantine.html",
        held=held,
        most=GALLERY,
        cameras=cameras,
        no_records=no_records,
        may_repair_all=may(request, Right.ADMIN, EVERYWHERE),
        **await job_choices(context, request),
    )


async def _flagged(context: ConsoleContext, request: Request) -> Response:
    place = request.path_params
    name = f"{place['site']}/{place['camera']}/{place['name']}"

    # Only names from the recorder's database are read, never a path that a visitor made up.
    query = select(quarantine.c.name).where(quarantine.c.name == name)
    known = await context.read_recorded(Connection.scalar, query) if _FILE.fullmatch(place["name"]) else None
    picture = b""
    if known is not None:
        with suppress(FileNotFoundError):
            picture = await context.fetch(frame_of, context.settings.quarantine, known, context.keys)
    if not picture:
        return error_response(404, "the frame is missing: it is not in quarantine")
    return Response(picture, media_type="image/png", headers=PICTURE_CACHED)
