"""Alerts, open, acknowledged and closed, and the frames in quarantine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, Engine, RowMapping, select
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from consumers.cameras.episodes import OPEN, STATES, Episode, Found, Reviews, episodes, sentence
from consumers.console.desk import Desk
from consumers.console.flagged import cameras_of, frame_of
from consumers.console.gate import form_of, may, no, session_of
from consumers.console.jobs_page import offered
from consumers.console.users import Right
from consumers.database.tables import alerts, frames, quarantine
from schemas.errors import UserError
from schemas.pointillist_pb2 import Alert

SHOWN: Final = 50
GALLERY: Final = 120
_LOOKED_AT: Final = 2_000
_LONGEST: Final = 200
_ID: Final = re.compile(r"[0-9a-f]{32}")
_FILE: Final = re.compile(r"[0-9a-f]{16}-[0-9]{1,16}")
_CACHED: Final = {"cache-control": "private, max-age=86400, immutable"}
"""What has an identity in its name never changes."""


@dataclass(frozen=True)
class Raised:
    """An alert with what people made of it."""

    alert_id: str
    """The same for the same evidence, however often it is raised."""
    camera: str
    """As `site/camera`."""
    kind: str
    """What it is about."""
    raised_ms: int
    """When it was raised, Unix time in milliseconds."""
    checked: int
    """Frames that STRIP has checked for it."""
    flagged: int
    """Those whose entropy lay below the threshold."""
    mean_entropy_bits: float
    """Over the checked frames."""
    threshold_bits: float
    """The entropy below which a frame is suspect."""
    baseline_bits: float
    """Median entropy of the camera before; 0 when it had no history."""
    evidence_octaves: float
    """The sum of how deep the frames lay below their baseline."""
    first: int
    """Sequence number of the first frame."""
    last: int
    """Sequence number of the last frame."""
    state: str = "open"
    """The state of its episode: `open`, `acknowledged` or `closed`."""
    who: str = ""
    """Who said so last."""
    at_ms: int | None = None
    """When."""
    episode: str = ""
    """Id of the first alert of its episode: the alerts of one camera that follow each other."""


_OWN: Final = ("state", "who", "at_ms", "episode")
_COLUMNS: Final = tuple(name for name in Raised.__dataclass_fields__ if name not in _OWN)


@dataclass(frozen=True)
class Shown:
    """One episode as the page shows it."""

    episode: Episode
    newest: Raised
    checked: int
    """Frames that were checked for all of its alerts."""
    class_name: str
    """The class that the frames of its newest alert were taken for; empty when that is not known any more."""
    model: str
    """The model that gave it."""

    @property
    def sentence(self) -> str:
        """The episode in plain words."""
        return sentence(self.class_name, self.checked)


def alert_routes(desk: Desk) -> list[Route]:
    """Its routes."""
    return [
        Route("/alerts", partial(_page, desk)),
        Route("/alerts/{alert_id}.png", partial(_thumbnail, desk)),
        Route("/alerts/{alert_id}", partial(_review, desk), methods=["POST"]),
        Route("/quarantine", partial(_gallery, desk)),
        Route("/quarantine/{site}/{camera}/{name}.png", partial(_flagged, desk)),
    ]


def in_episodes(
    engine: Engine, reviews: Reviews, published_ms: Sequence[int], camera: str = ""
) -> list[tuple[Episode, list[Raised]]]:
    """The newest alerts, of one camera or all, in their episodes; the newest episode and alert first."""
    columns = [alerts.c[name] for name in _COLUMNS]
    query = select(*columns).order_by(alerts.c.raised_ms.desc()).limit(_LOOKED_AT)
    if camera:
        query = query.where(alerts.c.camera == camera)
    with engine.begin() as connection:
        rows = {row["alert_id"]: row for row in connection.execute(query).mappings()}
    known = [Found(row["camera"], row["alert_id"], row["raised_ms"]) for row in rows.values()]
    return [(each, _raised(each, rows)) for each in episodes(known, reviews, published_ms)]


def _raised(episode: Episode, rows: Mapping[str, RowMapping]) -> list[Raised]:
    review = episode.review
    who, at_ms = (review.who, review.at_ms) if review is not None else ("", None)
    first = episode.alert_ids[0]
    return [
        Raised(**rows[alert_id], state=episode.state, who=who, at_ms=at_ms, episode=first)
        for alert_id in reversed(episode.alert_ids)
    ]


def newest_of(engine: Engine, found: Sequence[tuple[Episode, list[Raised]]]) -> list[Shown]:
    """Episodes with the class and the model of their newest alert."""
    shown = []
    with engine.begin() as connection:
        for episode, raised in found:
            newest, checked = raised[0], sum(each.checked for each in raised)
            message = connection.scalar(select(alerts.c.message).where(alerts.c.alert_id == newest.alert_id))
            shown.append(Shown(episode, newest, checked, *_answered(connection, newest, message or b"")))
    return shown


def _answered(connection: Connection, newest: Raised, message: bytes) -> tuple[str, str]:
    """The class that most of an alert's frames were taken for, and the model that did; empty where no frame is left."""
    try:
        alert = Alert.FromString(message)
    except DecodeError:
        return "", ""
    mine = (frames.c.camera == newest.camera, frames.c.boot == alert.boot_id, frames.c.class_id == alert.class_id)
    span = frames.c.seq.between(newest.first, newest.last)
    query = select(frames.c.class_name, frames.c.model_id).where(*mine, span).order_by(frames.c.seq.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return (row.class_name, row.model_id) if row is not None else ("", "")


async def find_episodes(desk: Desk, state: str, camera: str = "") -> list[tuple[Episode, list[Raised]]]:
    """The newest `SHOWN` episodes in a state, in any when it is empty; none while the recorder has made no database."""
    reviews = await desk.read(desk.store.reviewed)
    try:
        found = await desk.read(lambda: in_episodes(desk.engine(), reviews, desk.published_ms(), camera))
    except UserError:
        return []
    return [each for each in found if state in ("", each[0].state)][:SHOWN]


async def find_raised(desk: Desk, state: str, camera: str = "") -> list[Raised]:
    """The newest alerts whose episode is in a state, in any when it is empty."""
    found = [each for _, raised in await find_episodes(desk, state, camera) for each in raised]
    return sorted(found, key=lambda each: each.raised_ms, reverse=True)[:SHOWN]


async def _page(desk: Desk, request: Request) -> Response:
    state, camera = request.query_params.get("state", OPEN), request.query_params.get("camera", "")[:_LONGEST]
    state = state if state in STATES else OPEN
    found = await find_episodes(desk, state, camera)
    try:
        shown = await desk.read(lambda: newest_of(desk.engine(), found))
    except UserError:
        shown = []
    said = await desk.read(desk.store.said, [alert_id for each in shown for alert_id in each.episode.alert_ids])
    comments = {
        each.newest.alert_id: sorted(
            (one for alert_id in each.episode.alert_ids for one in said[alert_id]), key=lambda one: one["at_ms"]
        )
        for each in shown
    }
    return desk.page(
        request, "alerts.html", state=state, states=STATES, shown=shown, comments=comments, most=SHOWN, camera=camera
    )


async def _thumbnail(desk: Desk, request: Request) -> Response:
    alert_id = request.path_params["alert_id"]
    if not _ID.fullmatch(alert_id):
        return no(404, "expected the id of an alert")

    def read() -> bytes:
        with desk.engine().begin() as connection:
            message = connection.scalar(select(alerts.c.message).where(alerts.c.alert_id == alert_id))
        try:
            return Alert.FromString(message or b"").thumbnail
        except DecodeError:
            return b""

    picture = await desk.read(read)
    if not picture:
        return no(404, "this alert has no picture")
    return Response(picture, media_type="image/png", headers=_CACHED)


async def _review(desk: Desk, request: Request) -> Response:
    if not may(request, Right.OPERATOR):
        return no(403, "expected an operator")
    fields = form_of(request)
    who = session_of(request).name
    complaint = await review(desk, who, request.path_params["alert_id"], fields.get("state"), fields.get("text", ""))
    if complaint:
        return no(400, complaint)
    back = fields.get("back", OPEN)
    return RedirectResponse(f"/alerts?state={back if back in STATES else OPEN}", 303)


async def review(desk: Desk, who: str, alert_id: str, state: str | None, text: str) -> str:
    """Put the episode of an alert into a state, if one is given, and add a comment, if there is one; a complaint."""
    camera = await desk.read(_camera_of, desk, alert_id) if _ID.fullmatch(alert_id) else None
    if camera is None:
        return "expected the id of an alert"
    if state is not None and state not in STATES:
        return f"expected {', '.join(STATES)} as state, got {state[:40]!r}"
    if text.strip():
        await desk.write(desk.store.comment, alert_id, who, text.strip())
    if state is not None:
        reviews = await desk.read(desk.store.reviewed)
        found = await desk.read(lambda: in_episodes(desk.engine(), reviews, desk.published_ms(), camera))
        mine = next((each.alert_ids for each, _ in found if alert_id in each.alert_ids), [alert_id])
        made = await desk.write(desk.store.review, mine, state, who)
        for each in mine:
            desk.reviews.pop(each, None)
            if state != OPEN:
                desk.reviews[each] = made
        await desk.write(desk.store.note, who, "alert", alert_id, state, "done")
    return ""


def _camera_of(desk: Desk, alert_id: str) -> str | None:
    with desk.engine().begin() as connection:
        return connection.scalar(select(alerts.c.camera).where(alerts.c.alert_id == alert_id))


async def _gallery(desk: Desk, request: Request) -> Response:
    def read() -> list[tuple[str, int]]:
        newest = select(quarantine.c.name, quarantine.c.at_ms).order_by(quarantine.c.at_ms.desc()).limit(GALLERY)
        with desk.engine().begin() as connection:
            return [(name, at_ms) for name, at_ms in connection.execute(newest)]

    try:
        held = await desk.read(read)
        cameras = await desk.read(lambda: cameras_of(desk.engine()))
    except UserError:
        held, cameras = [], {}
    return desk.page(request, "quarantine.html", held=held, most=GALLERY, cameras=cameras, **await offered(desk))


async def _flagged(desk: Desk, request: Request) -> Response:
    place = request.path_params
    name = f"{place['site']}/{place['camera']}/{place['name']}"

    def read() -> bytes:
        # Only what the recorder's database names is read: no path of a visitor's making.
        with desk.engine().begin() as connection:
            known = connection.scalar(select(quarantine.c.name).where(quarantine.c.name == name))
        if known is None:
            return b""
        try:
            return frame_of(desk.settings.quarantine, known)
        except FileNotFoundError:
            return b""

    picture = await desk.read(read) if _FILE.fullmatch(place["name"]) else b""
    if not picture:
        return no(404, "this frame is not in quarantine")
    return Response(picture, media_type="image/png", headers=_CACHED)
