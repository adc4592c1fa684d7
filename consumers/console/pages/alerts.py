"""The alerts page: open, acknowledged and closed alerts, and the frames in quarantine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, RowMapping, and_, select, true
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from consumers.cameras.episodes import (
    ACKNOWLEDGED,
    CLOSED,
    OPEN,
    STATES,
    AlertSummary,
    Episode,
    episodes,
    sentence,
    sighting,
)
from consumers.cameras.open_alerts import KINDS, muted_rows, newest_rows
from consumers.console.access.error_response import error_response
from consumers.console.access.gate import form_of, session_of
from consumers.console.access.refusal import RefusedActionError
from consumers.console.access.rights import EVERYWHERE, GuardedRoute, Right, RightScope
from consumers.console.access.sight import ALL, Sight, site_of
from consumers.console.access.sites import may, require, sight_of
from consumers.console.context import ConsoleContext, unless_away
from consumers.console.data.quarantined import cameras_of, frame_of
from consumers.console.data.sentences import unusual
from consumers.console.pages.fleet import page_of
from consumers.console.pages.jobs import job_choices
from consumers.console.pages.mutes import LENGTHS, mute
from consumers.database.alerts import stored_alert
from consumers.database.console_store import Reviews
from consumers.database.mutes import Mute, mute_of, read_mutes
from consumers.database.tables import alerts, frames, quarantine
from consumers.records.rows import Window, statistic_name, windows_of
from schemas.clock import unix_ms
from schemas.evidence.alarms import COMBINED
from schemas.pointillist_pb2 import Alert

SHOWN: Final = 50
VERBS: Final = {OPEN: "Reopen", ACKNOWLEDGED: "Acknowledge", CLOSED: "Close"}
ON_PAGE: Final = 15
"""Episodes of one page: more would be too long for a phone."""
GALLERY: Final = 60
UNKNOWN: Final = "alert: expected the id of a stored alert"
_LOOKED_AT: Final = 2_000
_LONGEST: Final = 200
_ID: Final = re.compile(r"[0-9a-f]{32}")
_FILE: Final = re.compile(r"[0-9a-f]{16}-[0-9]{1,16}")
PICTURE_CACHED: Final = {"cache-control": "private, max-age=86400, immutable", "vary": "cookie"}
"""Headers of pictures that never change: a browser keeps them for the present login alone."""


@dataclass(frozen=True)
class AlertRow:
    """An alert with its review state."""

    alert_id: str
    """Deterministic id: the same evidence always gives the same id."""
    camera: str
    """Name of the camera, `site/camera`."""
    kind: str
    """The kind of evidence, or `sighting`."""
    raised_ms: int
    """When it was raised, Unix time in milliseconds."""
    checked: int
    """Frames that were checked for it."""
    flagged: int
    """Checked frames whose entropy or p-value is below the threshold."""
    mean_entropy_bits: float
    """Mean entropy over the checked frames, in bits."""
    threshold_bits: float
    """Entropy in bits below which a frame is suspect."""
    baseline_bits: float
    """Median entropy of the camera before the alert, in bits; 0 without a history."""
    evidence_octaves: float
    """Sum of the distances of the frames below their baseline, in octaves."""
    mean_p_value: float
    """Kind `combined`: geometric mean of the checked frames' p-values, 0 to 1."""
    p_value_threshold: float
    """P-value below which a frame is suspect."""
    baseline_p_value: float
    """Median p-value of the camera before the alert; 0 without a history."""
    statistic: str
    """Kind `combined`: the statistic that finds most of the frames most unusual: `entropy`, `disagreement`,
    `typicality`, `layer_disagreement` or `scaled_norms`. Empty for other kinds."""
    window: str
    """Window on which the label depends: left, top, right and bottom in pixels, and the dependence. May be empty."""
    first: int
    """Sequence number of the first frame."""
    last: int
    """Sequence number of the last frame."""
    wanted: str
    """Kind `sighting`: the class or group that the camera sees."""
    confidence: float
    """Kind `sighting`: mean confidence of the agreeing frames, 0 to 1."""
    ended_ms: int
    """Kind `sighting`: time of the last agreeing frame, once it has ended; 0 until then."""
    state: str = "open"
    """The state of its episode: `open`, `acknowledged` or `closed`."""
    who: str = ""
    """The user who set the state."""
    at_ms: int | None = None
    """Time of that decision, Unix time in milliseconds."""
    episode: str = ""
    """Id of the first alert of its episode: successive alerts of one camera and cause form an episode."""


_OWN: Final = ("state", "who", "at_ms", "episode")
_COLUMNS: Final = tuple(name for name in AlertRow.__dataclass_fields__ if name not in _OWN)


@dataclass(frozen=True)
class EpisodeSummary:
    """One episode as the page shows it."""

    episode: Episode
    alert: AlertRow
    """Its newest alert, or the requested one."""
    checked: int
    """Checked frames of all its alerts."""
    class_name: str
    """The predicted class in that alert; empty if it is no longer in the database."""
    model: str
    """The model that predicted this class."""
    mute: Mute | None = None
    """The mute of this episode or of its camera."""

    @property
    def window(self) -> Window | None:
        """Return the window of the frame on which the label depends, if a frame was examined."""
        return windows_of(self.alert.window)[0] if self.alert.window else None

    @property
    def sentence(self) -> str:
        """Return the episode in plain words."""
        if self.alert.wanted:
            return f"{sighting(self.alert.camera, self.alert.wanted, self.alert.confidence)}."
        alert = self.alert
        words = sentence(self.class_name, self.checked, alert.kind, alert.statistic)
        if alert.kind != COMBINED:
            return words
        return f"{words} The frames look {unusual(alert.mean_p_value, alert.p_value_threshold, alert.statistic)}."


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


def read_episodes(
    connection: Connection, reviews: Reviews, published_ms: Sequence[int], camera: str = "", sight: Sight = ALL
) -> list[tuple[Episode, list[AlertRow]]]:
    """Return the newest alerts of one camera or all of these sites, grouped into episodes, newest first."""
    columns = [alerts.c[name] for name in _COLUMNS]
    is_included = and_(sight.where(alerts.c.camera), alerts.c.camera == camera if camera else true())
    newest = [row for kind in KINDS for row in newest_rows(connection, columns, kind, _LOOKED_AT, is_included)]
    newest += muted_rows(connection, columns, is_included)
    rows = {row.alert_id: row._mapping for row in newest}
    known = [AlertSummary(*(row[name] for name in AlertSummary._fields)) for row in rows.values()]
    return [(each, _alert_rows(each, rows)) for each in episodes(known, reviews, published_ms)]


def _alert_rows(episode: Episode, rows: Mapping[str, RowMapping]) -> list[AlertRow]:
    review = episode.review
    who, at_ms = (review.who, review.at_ms) if review is not None else ("", None)
    first = episode.alert_ids[0]
    mine = [rows[alert_id] for alert_id in reversed(episode.alert_ids)]
    named = [{**row, "statistic": statistic_name(row["statistic"])} for row in mine]
    return [AlertRow(**row, state=episode.state, who=who, at_ms=at_ms, episode=first) for row in named]


def summarise_episodes(connection: Connection, found: Sequence[tuple[Episode, list[AlertRow]]]) -> list[EpisodeSummary]:
    """Return the episodes, each with the class and the model of the first alert in its list; the muted ones last."""
    shown = []
    mutes = read_mutes(connection, unix_ms())
    for episode, raised in found:
        first, checked = raised[0], sum(each.checked for each in raised)
        message = connection.scalar(select(alerts.c.message).where(alerts.c.alert_id == first.alert_id))
        mute = mute_of(mutes, episode.camera, episode.alert_ids)
        predicted = _predicted_class(connection, first, message or b"")
        shown.append(EpisodeSummary(episode, first, checked, *predicted, mute))
    return sorted(shown, key=lambda each: each.mute is not None)


def _predicted_class(connection: Connection, raised: AlertRow, message: bytes) -> tuple[str, str]:
    """Return the most frequent class of an alert's frames and the model; empty strings if no frame is left."""
    try:
        alert = Alert.FromString(message)
    except DecodeError:
        return "", ""
    mine = (frames.c.camera == raised.camera, frames.c.boot == alert.boot_id, frames.c.class_id == alert.class_id)
    span = frames.c.seq.between(raised.first, raised.last)
    query = select(frames.c.class_name, frames.c.model_id).where(*mine, span).order_by(frames.c.seq.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return (row.class_name, row.model_id) if row is not None else ("", "")


async def _newest_episodes(
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
    newest = await _newest_episodes(context, camera, sight)
    newest.sort(key=lambda each: STATES.index(each[0].state))
    mine = [raised for episode, raised in newest if state in ("", episode.state)]
    further = sorted((each for raised in mine for each in raised[1:]), key=lambda each: -each.raised_ms)
    found = [*(raised[0] for raised in mine), *further]
    backdoors = [each for each in found if not each.wanted][:SHOWN]
    sightings = [each for each in found if each.wanted][:SHOWN]
    return sorted([*backdoors, *sightings], key=lambda each: (STATES.index(each.state), -each.raised_ms))


async def _page(context: ConsoleContext, request: Request) -> Response:
    state, camera = request.query_params.get("state", OPEN), request.query_params.get("camera", "")[:_LONGEST]
    state = state if state in STATES else OPEN
    newest, no_records = await unless_away(_newest_episodes(context, camera, sight_of(request)), [])
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
        for episode, raised in await _newest_episodes(context, camera)
        if alert_id in episode.alert_ids
    ]
    if not mine:
        return error_response(404, f"alert: expected one of the newest {_LOOKED_AT} of its camera, got an older one")
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
    return await _change(context, request, [name for name in form_of(request) if _ID.fullmatch(name)][:SHOWN])


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


def origin_of(fields: Mapping[str, str]) -> str:
    """Return the address of the page of alerts whose form has sent these fields."""
    back, camera = fields.get("back", OPEN), fields.get("camera", "")[:_LONGEST]
    shown = {"state": back if back in STATES else OPEN} | ({"camera": camera} if camera else {})
    return f"/alerts?{urlencode(shown)}"


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
    camera: str | None = await context.read_recorded(Connection.scalar, query) if _ID.fullmatch(alert_id) else None
    require(request, camera, UNKNOWN)
    assert camera is not None
    return camera


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
