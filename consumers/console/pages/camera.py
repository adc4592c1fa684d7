"""The camera page: last pictures, history, settings and commands in force."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from sqlalchemy import Connection, select
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from consumers.console.access.connections import begin_long_answer
from consumers.console.access.error_response import error_response
from consumers.console.access.gate import form_of, session_of
from consumers.console.access.refusal import RefusedActionError
from consumers.console.access.rights import GuardedRoute, Right
from consumers.console.access.sight import Sight
from consumers.console.access.sites import may, visible_to
from consumers.console.actions.camera import answer_history, name_of, request_certificates, send_command
from consumers.console.actions.fleet import UNKNOWN
from consumers.console.actions.mutes import LENGTHS, mute
from consumers.console.background.clip_keeper import film_around
from consumers.console.context import ConsoleContext, unless_away
from consumers.console.data.cards import Card, ranked
from consumers.console.data.clips import AFTER_MS, BEFORE_MS
from consumers.console.data.commands import settings_of
from consumers.console.data.history import RANGES, USUAL
from consumers.console.data.kept_clips import ASKED
from consumers.console.data.pictures import PictureVersions
from consumers.console.data.sentences import unusual
from consumers.console.data.stream import Streams
from consumers.console.pages.alerts import origin_of
from consumers.console.pages.fleet import header_changes
from consumers.console.pages.outcomes import answer, fields_of, outcome_of
from consumers.database.tables import quarantine
from consumers.records.rows import FrameRow, windows_of
from schemas.clock import unix_ms
from schemas.errors import UserError

SHOWN_FRAMES: Final = 6
"""Maximum number of flagged frames on a camera's page."""
SHOWN_CLIPS: Final = 6
REQUESTED: Final = 4
"""Frames whose labels the page's button certifies."""

_PUSHED: Final = ("sentence.html", "ways.html", "now.html")
"""Parts of the page that change with each frame."""


def camera_routes(context: ConsoleContext, streams: Streams) -> list[GuardedRoute]:
    """Return the routes of the page."""
    place = "/camera/{site}/{camera}"
    return [
        GuardedRoute(place, partial(_page, context)),
        GuardedRoute(f"{place}/live", partial(_live, context, streams)),
        GuardedRoute(f"{place}/history", partial(answer_history, context)),
        GuardedRoute(f"{place}/clip.mp4", partial(_clip, context)),
        GuardedRoute(f"{place}/clip", partial(_keep_clip, context), "POST", Right.OPERATOR),
        GuardedRoute(f"{place}/command", partial(_command, context), "POST", Right.OPERATOR),
        GuardedRoute(f"{place}/certify", partial(_certify, context), "POST", Right.OPERATOR),
        GuardedRoute(f"{place}/mute", partial(_mute, context), "POST", Right.OPERATOR),
    ]


async def _page(context: ConsoleContext, request: Request) -> Response:
    name = name_of(request)
    card, camera = context.fleet.card(name), context.fleet.camera(name)
    if card is None or camera is None:
        if elsewhere := context.fleet.elsewhere(name):
            return RedirectResponse(elsewhere.console, 303)
        return context.page(request, "missing.html", 404, what=f"There is no camera named {name}.")
    asked = request.query_params.get("range", USUAL)
    held, no_records = await unless_away(context.read_recorded(flagged_frames, name), [])
    return context.page(
        request,
        "camera.html",
        card=card,
        ways=context.fleet.picture_versions(name),
        settings=settings_of(camera.meta),
        policy=context.drop_plan.policy_of(name),
        steered=context.drop_plan.steered(name),
        entropy=camera.entropy_bits,
        flagged=camera.flagged_share(),
        unusual=unusual(*camera.p_value, ranked="most of all") if camera.p_value is not None else "",
        examined=camera.examined,
        examined_class=_class_of(camera.examined) if camera.examined is not None else "",
        windows=windows_of(camera.examined.windows) if camera.examined is not None else [],
        status_ms=camera.status.state_ms if camera.status else None,
        operations=await context.read(context.store.newest_operations, name, 20),
        held=held,
        no_records=no_records,
        clips=await context.read(context.clips.of, name, SHOWN_CLIPS) if context.clips is not None else None,
        lengths=LENGTHS,
        ranges=list(RANGES),
        range=asked if asked in RANGES else USUAL,
        outcome=outcome_of(request),
        can_tell=context.commands is not None and may(request, Right.OPERATOR),
        stream=f"/camera/{name}/live",
    )


def _class_of(row: FrameRow) -> str:
    """Return the class of a verdict, also of one that reads as a group or `unsure`."""
    return next((name for name, _ in ranked(row.best)), row.class_name)


def flagged_frames(connection: Connection, name: str) -> list[tuple[str, int]]:
    """Return the camera's newest frames in quarantine: name, and Unix time in milliseconds."""
    mine = quarantine.c.name.startswith(f"{name}/", autoescape=True)
    newest = (
        select(quarantine.c.name, quarantine.c.at_ms)
        .where(mine)
        .order_by(quarantine.c.at_ms.desc())
        .limit(SHOWN_FRAMES)
    )
    return [(name, at_ms) for name, at_ms in connection.execute(newest)]


async def _live(context: ConsoleContext, streams: Streams, request: Request) -> Response:
    name = name_of(request)
    if context.fleet.card(name) is None:
        return error_response(404, UNKNOWN.format(name))
    return streams.answer(request, changes_on(context, name, visible_to(request)))


def changes_on(context: ConsoleContext, name: str, sight: Sight) -> Callable[[], str]:
    """Return a function that renders the changed parts of a camera's page; empty if nothing changed."""
    shown: tuple[Card, PictureVersions] | None = None
    header = header_changes(context, sight)

    def changed() -> str:
        nonlocal shown
        card = context.fleet.card(name)
        if card is not None and context.views is not None:
            context.views.note(name)
        now = (card, context.fleet.picture_versions(name)) if card is not None else None
        if now is None or now == shown:
            return header()
        shown = now
        parts = [context.render(name, card=now[0], ways=now[1], pushed=True) for name in _PUSHED]
        return header() + "\n".join(parts)

    return changed


async def _clip(context: ConsoleContext, request: Request) -> Response:
    """Send the film around a moment: the one kept of this moment, else one from Kafka, else a kept one nearby.

    Without `at_ms`, those of the last half minute.
    """
    name, asked = name_of(request), request.query_params.get("at_ms", "")
    if context.fleet.card(name) is None:
        return error_response(404, UNKNOWN.format(name))
    at_ms = int(asked) if asked.isascii() and asked.isdecimal() and len(asked) < 16 else 0
    clips, complaint = context.clips if at_ms else None, ""
    begin_long_answer(request.scope)
    data = await context.run_on_kept_files(clips.film, name, at_ms) if clips is not None else b""
    if not data:
        if context.filming.locked():
            return error_response(503, "clip: expected no other at this time. Try again in some seconds.")
        try:
            data = await film_around(context, name, at_ms or unix_ms())
        except UserError as error:
            complaint = str(error)
    if not data and clips is not None:
        data = await context.run_on_kept_files(clips.film, name, at_ms, AFTER_MS)
    if not data and complaint:
        return error_response(503, complaint)
    if not data:
        return error_response(404, f"{name}: expected pictures around that time, got none. Kafka no longer holds them.")
    file = f"{name.replace('/', '-')}-{at_ms or unix_ms()}.mp4"
    return Response(data, media_type="video/mp4", headers={"content-disposition": f'attachment; filename="{file}"'})


async def _keep_clip(context: ConsoleContext, request: Request) -> Response:
    """Keep the pictures around this moment."""
    name = name_of(request)
    if context.clips is None or context.fleet.card(name) is None:
        return error_response(
            409, "clip: expected a camera of this fleet, and a console with the key to pictures and a quarantine"
        )
    who = session_of(request).name
    await context.run_on_kept_files(context.clips.request, [(name, unix_ms())], ASKED, who)
    await context.note(who, "clip", name, f"{BEFORE_MS // 1000} s before to {AFTER_MS // 1000} s after", "asked for")
    return RedirectResponse(f"/camera/{name}#clips", 303)


async def _command(context: ConsoleContext, request: Request) -> Response:
    name, fields = name_of(request), fields_of(request)
    asked = {key: value for key, value in fields.items() if key != "reset" and value != ""}
    sent = send_command(context, request, name, None if "reset" in fields else asked)
    return await answer(f"/camera/{name}", sent, (RefusedActionError,))


async def _certify(context: ConsoleContext, request: Request) -> Response:
    name = name_of(request)
    requested = request_certificates(context, session_of(request).name, name, REQUESTED)
    return await answer(f"/camera/{name}", requested, (RefusedActionError,))


async def _mute(context: ConsoleContext, request: Request) -> Response:
    name, fields = name_of(request), form_of(request)
    await mute(context, request, {name: None}, fields.get("mute", ""), fields.get("reason", ""))
    return RedirectResponse(origin_of(fields) if "back" in fields else f"/camera/{name}", 303)
