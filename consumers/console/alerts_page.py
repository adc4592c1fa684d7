"""Alerts, open, acknowledged and closed, and the frames in quarantine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from google.protobuf.message import DecodeError
from sqlalchemy import Engine, select
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from consumers.console.desk import Desk
from consumers.console.flagged import cameras_of, frame_of
from consumers.console.gate import form_of, may, no, session_of
from consumers.console.jobs_page import offered
from consumers.console.users import Right
from consumers.database.tables import alerts, quarantine
from schemas.errors import UserError
from schemas.pointillist_pb2 import Alert

STATES: Final = ("open", "acknowledged", "closed")
SHOWN: Final = 50
GALLERY: Final = 120
_LOOKED_AT: Final = 2_000
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
    """What people made of it: `open`, `acknowledged` or `closed`."""
    who: str = ""
    """Who said so last."""
    at_ms: int | None = None
    """When."""


_COLUMNS: Final = tuple(name for name in Raised.__dataclass_fields__ if name not in ("state", "who", "at_ms"))


def alert_routes(desk: Desk) -> list[Route]:
    """Its routes."""
    return [
        Route("/alerts", partial(_page, desk)),
        Route("/alerts/{alert_id}.png", partial(_thumbnail, desk)),
        Route("/alerts/{alert_id}", partial(_review, desk), methods=["POST"]),
        Route("/quarantine", partial(_gallery, desk)),
        Route("/quarantine/{site}/{camera}/{name}.png", partial(_flagged, desk)),
    ]


def raised(engine: Engine, reviews: Mapping[str, Mapping[str, Any]], state: str, camera: str = "") -> list[Raised]:
    """The newest alerts in a state first; all when `state` is empty."""
    columns = [alerts.c[name] for name in _COLUMNS]
    query = select(*columns).order_by(alerts.c.raised_ms.desc()).limit(_LOOKED_AT)
    if camera:
        query = query.where(alerts.c.camera == camera)
    found: list[Raised] = []
    with engine.begin() as connection:
        for row in connection.execute(query).mappings():
            review = reviews.get(row["alert_id"])
            now = Raised(**row, **({name: review[name] for name in ("state", "who", "at_ms")} if review else {}))
            if state in ("", now.state):
                found.append(now)
                if len(found) == SHOWN:
                    break
    return found


async def find_raised(desk: Desk, state: str, camera: str = "") -> list[Raised]:
    """The same of a console; none while the recorder has made no database."""
    reviews = await desk.read(desk.store.reviewed)
    try:
        return await desk.read(lambda: raised(desk.engine(), reviews, state, camera))
    except UserError:
        return []


async def _page(desk: Desk, request: Request) -> Response:
    state = request.query_params.get("state", "open")
    state = state if state in STATES else "open"
    shown = await find_raised(desk, state)
    return desk.page(
        request,
        "alerts.html",
        state=state,
        states=STATES,
        shown=shown,
        comments=await desk.read(desk.store.said, [each.alert_id for each in shown]),
        most=SHOWN,
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
    back = fields.get("back", "open")
    return RedirectResponse(f"/alerts?state={back if back in STATES else 'open'}", 303)


async def review(desk: Desk, who: str, alert_id: str, state: str | None, text: str) -> str:
    """Put an alert into a state, if one is given, and say something of it, if there is something; a complaint."""
    if not _ID.fullmatch(alert_id) or not await desk.read(_is_known, desk, alert_id):
        return "expected the id of an alert"
    if state is not None and state not in STATES:
        return f"expected {', '.join(STATES)} as state, got {state[:40]!r}"
    if text.strip():
        await desk.write(desk.store.comment, alert_id, who, text.strip())
    if state is not None:
        await desk.write(desk.store.review, alert_id, state, who)
        (desk.closed.add if state == "closed" else desk.closed.discard)(alert_id)
        await desk.write(desk.store.note, who, "alert", alert_id, state, "done")
    return ""


def _is_known(desk: Desk, alert_id: str) -> bool:
    with desk.engine().begin() as connection:
        return connection.scalar(select(alerts.c.alert_id).where(alerts.c.alert_id == alert_id)) is not None


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
            return frame_of(desk.settings.recorder.quarantine, known)
        except FileNotFoundError:
            return b""

    picture = await desk.read(read) if _FILE.fullmatch(place["name"]) else b""
    if not picture:
        return no(404, "this frame is not in quarantine")
    return Response(picture, media_type="image/png", headers=_CACHED)
