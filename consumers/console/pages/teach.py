"""The teach page: frames to label by the keyboard, classes, and the training of a classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import groupby
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from consumers.console.access.error_response import error_response
from consumers.console.access.gate import form_of, session_of
from consumers.console.access.rights import EVERYWHERE, GuardedRoute, Right, RightScope
from consumers.console.access.sight import Sight, site_of
from consumers.console.access.sites import may, require, sight_of, visible_to
from consumers.console.actions.changes import text_of
from consumers.console.actions.jobs import job_choices
from consumers.console.context import ConsoleContext
from consumers.console.data.labelled_frames import ENOUGH, LabelledFrame, LabelledFrames
from consumers.console.jobs.jobs import Jobs
from consumers.console.jobs.rows import Job
from consumers.console.pages.alerts import PICTURE_CACHED
from consumers.console.pages.jobs import submit_action
from schemas.errors import UserError

SHOWN: Final = 60
"""Most frames on the page."""
CHANGED: Final = 240
"""Most labelled frames on the page, the newest."""
GOOD: Final = 20
"""Labels of a class that are a good beginning."""
_LONGEST: Final = 200
NONE: Final = "labels are missing: this console has no key to pictures, or no quarantine"


def teach_routes(context: ConsoleContext) -> list[GuardedRoute]:
    """Return the routes of the page."""
    return [
        GuardedRoute("/teach", partial(_page, context), reach=RightScope.PART),
        GuardedRoute("/teach/label", partial(_label, context), "POST", Right.OPERATOR, RightScope.PART),
        GuardedRoute("/teach/cameras", partial(_cameras, context), "POST", Right.OPERATOR, RightScope.PART),
        GuardedRoute("/teach/wrong", partial(_wrong, context), "POST", Right.OPERATOR, RightScope.PART),
        GuardedRoute("/teach/train", partial(submit_action, context, _start), "POST", Right.ADMIN, RightScope.FLEET),
        GuardedRoute("/teach/picture/{site}/{camera}/{frame}.jpg", partial(_picture, context)),
    ]


async def _page(context: ConsoleContext, request: Request) -> Response:
    labelled_frames = context.labelled_frames
    if labelled_frames is None:
        return context.page(request, "missing.html", 404, what=NONE.capitalize() + ".")
    sight = sight_of(request)
    counts = await context.read(labelled_frames.counts, sight)
    labelled = request.query_params.get("show") == "labelled"
    last = await context.read(labelled_frames.labelled_last, session_of(request).name, sight)
    shown = await (
        context.read(labelled_frames.labelled, CHANGED, sight)
        if labelled
        else context.read(labelled_frames.waiting, SHOWN, sight)
    )
    return context.page(
        request,
        "teach.html",
        shown=shown,
        labelled=labelled,
        last=[name for name in last if may(request, Right.OPERATOR, name)],
        counts=counts,
        ready=_ready(counts),
        omitted=_omitted(counts),
        enough=ENOUGH,
        good=GOOD,
        can_admin=may(request, Right.ADMIN, EVERYWHERE),
        chosen=await context.read(labelled_frames.cameras, sight),
        asked=request.query_params.get("camera", "")[:_LONGEST],
        cameras=sorted(card.name for card in context.fleet.own_cards(sight)),
        **await job_choices(context, request),
    )


async def _label(context: ConsoleContext, request: Request) -> Response:
    """Label or discard frames, and answer with the classes and the frames that wait."""
    labelled_frames, fields = context.labelled_frames, form_of(request)
    if labelled_frames is None:
        return error_response(409, NONE)
    names, label = fields.get("names", "").split(), fields.get("label", "").strip()
    for name in names:
        require(request, name)
    who = session_of(request).name
    try:
        if fields.get("discard"):
            await context.run_on_kept_files(labelled_frames.discard, names)
        else:
            await context.run_on_kept_files(labelled_frames.label, names, label, who)
    except UserError as error:
        return error_response(400, str(error))
    detail = "discarded" if fields.get("discard") else label or "label removed"
    for site, mine in groupby(sorted(names), site_of):
        given = list(mine)
        subject = given[0] if len(given) == 1 else f"{len(given)} frames"
        await context.note(who, "label", subject, detail, "done", site)
    may_label = partial(may, request, Right.OPERATOR)
    return JSONResponse(await context.read(_state, labelled_frames, visible_to(request), may_label))


def _state(labelled_frames: LabelledFrames, sight: Sight, may_label: Callable[[str], bool]) -> dict[str, Any]:
    """Return the classes and the frames that wait, of the same sites as on the page."""
    counts = labelled_frames.counts(sight)
    waiting = [_document(each, may_label(each.camera)) for each in labelled_frames.waiting(SHOWN, sight)]
    # Pairs: a browser would give the keys of an object another order, classes such as "10" and "9" by their numbers.
    return {"counts": list(counts.items()), "ready": _ready(counts), "omitted": _omitted(counts), "waiting": waiting}


def _ready(counts: Mapping[str, int]) -> bool:
    return sum(count >= ENOUGH for count in counts.values()) >= 2


def _omitted(counts: Mapping[str, int]) -> list[str]:
    """Return the classes that a training now would omit for lack of labels."""
    return [name for name, count in counts.items() if count < ENOUGH] if _ready(counts) else []


def _document(frame: LabelledFrame, may_label: bool) -> dict[str, str | bool]:
    return {"name": frame.name, "suggestion": frame.suggestion, "may_label": may_label}


async def _cameras(context: ConsoleContext, request: Request) -> Response:
    labelled_frames, fields = context.labelled_frames, form_of(request)
    if labelled_frames is None:
        return error_response(409, NONE)
    camera, wanted = fields.get("camera", ""), fields.get("wanted") == "yes"
    require(request, camera)
    if wanted and context.fleet.card(camera) is None:
        return error_response(400, "camera: expected one of this fleet")
    who = session_of(request).name
    await context.run_on_kept_files(partial(labelled_frames.collect, wanted=wanted), camera, who)
    await context.note(who, "collect", camera, "on" if wanted else "off", "done")
    return RedirectResponse(f"/teach?{urlencode({'camera': camera})}" if wanted else "/teach", 303)


async def _wrong(context: ConsoleContext, request: Request) -> Response:
    """Keep the camera's picture while it has the verdict on the page, which a user calls wrong."""
    labelled_frames, fields = context.labelled_frames, form_of(request)
    camera = fields.get("camera", "")
    require(request, camera)
    picture = context.fleet.picture(camera)
    if labelled_frames is None or picture is None:
        return error_response(
            409, NONE if labelled_frames is None else "picture: expected one of this camera, it has none yet"
        )
    row = picture.row
    if fields.get("verdict") != row.class_name:
        return error_response(
            409, f"{camera}: expected the verdict on the page, got {row.class_name!r} by now. Look again."
        )
    await context.run_on_kept_files(
        labelled_frames.keep, row[:3], picture.jpeg, "wrong", row.class_name, row.confidence
    )
    await context.note(session_of(request).name, "wrong verdict", camera, row.class_name, "kept for labelling")
    return RedirectResponse("/teach", 303)


async def _start(_context: ConsoleContext, jobs: Jobs, request: Request, sent: dict[str, Any]) -> Job:
    return await jobs.teach(
        session_of(request).name, text_of(sent, "name").strip(), thorough=text_of(sent, "thorough") == "yes"
    )


async def _picture(context: ConsoleContext, request: Request) -> Response:
    name = "{site}/{camera}/{frame}".format(**request.path_params)
    jpeg = (
        await context.run_on_kept_files(context.labelled_frames.picture, name)
        if context.labelled_frames is not None
        else b""
    )
    if not jpeg:
        return error_response(404, "the frame is not kept any more")
    return Response(jpeg, media_type="image/jpeg", headers=PICTURE_CACHED)
