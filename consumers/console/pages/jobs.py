"""The jobs page: repair from the quarantine, publish and roll back, with live progress and reports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from consumers.console.access.error_response import error_response
from consumers.console.access.gate import form_of, session_of
from consumers.console.access.refusal import RefusedActionError
from consumers.console.access.rights import EVERYWHERE, GuardedRoute, Right, RightScope
from consumers.console.access.sites import may, require, sight_of, visible_to
from consumers.console.context import ConsoleContext, unless_away
from consumers.console.data.quarantined import cameras_of
from consumers.console.data.stream import Streams
from consumers.console.jobs.bundles import OWN
from consumers.console.jobs.jobs import RESUMABLE, SHOWN, Jobs
from consumers.console.jobs.output import PICTURES, Progress
from consumers.console.jobs.rows import Job, JobKind, JobState
from consumers.console.pages.fleet import header_changes
from consumers.console.pages.outcomes import text_of
from schemas.errors import ConfigError, StateError, UserError
from schemas.messages.rollout import slots

NONE = "jobs.folder is missing: set it to start jobs from this console"
UNKNOWN = "job: expected the id of a stored job"
Act = Callable[[ConsoleContext, Jobs, Request, dict[str, Any]], Awaitable[Job]]
"""Starts or changes a job for the user of a request, from the submitted values."""


def job_routes(context: ConsoleContext, streams: Streams) -> list[GuardedRoute]:
    """Return the routes of the page."""
    return [
        *(
            GuardedRoute(f"/jobs/{name}", partial(submit_action, context, act), "POST", Right.ADMIN, start_reach(name))
            for name, act in STARTS.items()
        ),
        GuardedRoute("/jobs/{job_id}", partial(_page, context), reach=RightScope.PART),
        GuardedRoute("/jobs/{job_id}/live", partial(_live, context, streams), reach=RightScope.PART),
        GuardedRoute("/jobs/{job_id}/{name}.png", partial(_picture, context), reach=RightScope.PART),
        *(
            GuardedRoute(
                f"/jobs/{{job_id}}/{name}", partial(submit_action, context, act), "POST", Right.ADMIN, RightScope.PART
            )
            for name, act in CHANGES.items()
        ),
    ]


async def _repair(context: ConsoleContext, jobs: Jobs, request: Request, sent: dict[str, Any]) -> Job:
    camera = text_of(sent, "camera")
    require(request, camera)
    if camera:
        held, away = await unless_away(context.read_recorded(cameras_of, sight_of(request)), {})
        if away:
            raise RefusedActionError(away, 503)
        if camera not in held:
            raise ConfigError("camera: expected one with frames in quarantine, or none")
    return await jobs.repair(session_of(request).name, text_of(sent, "bundle"), camera, visible_to(request))


async def _publish(_context: ConsoleContext, jobs: Jobs, request: Request, sent: dict[str, Any]) -> Job:
    return await jobs.publish(session_of(request).name, text_of(sent, "bundle"))


async def _roll_back(context: ConsoleContext, jobs: Jobs, request: Request, sent: dict[str, Any]) -> Job:
    live = context.models.live if context.models is not None else None
    if live is None:
        raise ConfigError("the live model is missing: publish one first")
    return await jobs.change_model(session_of(request).name, JobKind.ROLLBACK, _check_shown_model(sent, live.model_id))


async def _candidate(_context: ConsoleContext, jobs: Jobs, request: Request, sent: dict[str, Any]) -> Job:
    by_rule = text_of(sent, "by_rule") == "yes"
    return await jobs.begin_rollout(session_of(request).name, text_of(sent, "bundle"), by_rule=by_rule)


async def _end_rollout(
    kind: JobKind, context: ConsoleContext, jobs: Jobs, request: Request, sent: dict[str, Any]
) -> Job:
    return await jobs.change_model(session_of(request).name, kind, _check_shown_model(sent, _candidate_of(context)))


def _check_shown_model(sent: dict[str, Any], now: str) -> str:
    """Return the model `now`. Raises ConfigError if the sender has seen another one, or does not name it."""
    shown = text_of(sent, "model")
    if not shown:
        raise ConfigError(f"model: expected the model that this is about, now {now}, got none. Add it")
    if shown != now:
        raise ConfigError(f"model: expected {shown[:200]}, as the page showed it, got {now}. Reload the page")
    return now


def _candidate_of(context: ConsoleContext) -> str:
    candidate = slots(context.models.models).candidate if context.models is not None else None
    if candidate is None:
        raise ConfigError("the candidate is missing: begin a rollout first")
    return candidate.model_id


async def _cancel(context: ConsoleContext, jobs: Jobs, request: Request, _sent: dict[str, Any]) -> Job:
    _, job = await job_of(context, request)
    await jobs.cancel(session_of(request).name, job)
    return job


async def _resume(context: ConsoleContext, jobs: Jobs, request: Request, _sent: dict[str, Any]) -> Job:
    _, job = await job_of(context, request)
    return await jobs.resume(session_of(request).name, job)


async def job_of(context: ConsoleContext, request: Request) -> tuple[Jobs, Job]:
    """Return the jobs, and the one that the request's path names. Raises RefusedActionError as `require` does."""
    jobs = context.jobs
    job = await context.read(jobs.find, request.path_params["job_id"]) if jobs is not None else None
    require(request, None if job is None else job.camera, UNKNOWN)
    assert jobs is not None
    assert job is not None
    return jobs, job


STARTS: dict[str, Act] = {
    "repair": _repair,
    "publish": _publish,
    "rollback": _roll_back,
    "candidate": _candidate,
    "promote": partial(_end_rollout, JobKind.PROMOTE),
    "dismiss": partial(_end_rollout, JobKind.DISMISS),
}
CHANGES: dict[str, Act] = {"cancel": _cancel, "continue": _resume}


def start_reach(name: str) -> RightScope:
    """Return the reach of a job: the models are those of the whole fleet, a repair may use one camera alone."""
    return RightScope.PART if name == "repair" else RightScope.FLEET


async def run_action(context: ConsoleContext, act: Act, request: Request, sent: dict[str, Any]) -> Job | Response:
    """Start or change a job. Return the job, or a refusal in one line."""
    if context.jobs is None:
        return error_response(409, NONE)
    try:
        return await act(context, context.jobs, request, sent | request.path_params)
    except StateError as error:
        return error_response(409, str(error))
    except UserError as error:
        return error_response(400, str(error))


async def submit_action(context: ConsoleContext, act: Act, request: Request) -> Response:
    """Start or change a job by the fields of a form. Return a redirect to the job's page, or a refusal in one line."""
    found = await run_action(context, act, request, dict(form_of(request)))
    return found if isinstance(found, Response) else RedirectResponse(f"/jobs/{found.job_id}", 303)


async def job_choices(context: ConsoleContext, request: Request) -> dict[str, Any]:
    """Return the context of pages that start jobs: the jobs, the bundles, and missing requirements."""
    jobs = context.jobs
    if jobs is None:
        return {"jobs": None, "newest": [], "choices": [], "publishable": [], "unscanned": {}, "usual": ""}
    choices = list((await context.read(jobs.choices, visible_to(request))).values())
    live = context.models.live if context.models is not None else None
    same = [each.choice_id for each in choices if live and each.name and live.model_id.startswith(f"{each.name}+")]
    publishable = [each for each in choices if each.choice_id != OWN]
    sources = await context.read(jobs.scan_sources, publishable)
    unscanned = defaultdict[str, list[str]](list)
    for each in publishable:
        if lack := sources[each.choice_id].lack:
            unscanned[lack].append(each.label)
    return {
        "jobs": jobs,
        "newest": await context.read(jobs.newest, SHOWN, visible_to(request)),
        "choices": choices,
        "publishable": publishable,
        "unscanned": unscanned,
        "usual": (same or [""])[-1],
    }


async def _shown(context: ConsoleContext, jobs: Jobs, job: Job, request: Request) -> dict[str, Any]:
    admin = may(request, Right.ADMIN, job.camera)
    ended = job.state is not JobState.RUNNING
    report = await context.read(jobs.report, job) if ended and job.kind is JobKind.REPAIR else None
    taught = await context.read(jobs.teach_report, job) if ended and job.kind is JobKind.TEACH else None
    frames = context.labelled_frames if taught is not None else None
    files = [file for file, *_ in taught.worst] if taught is not None else []
    job_bundle = (
        f"job-{job.job_id}" if job.kind in (JobKind.REPAIR, JobKind.TEACH) and job.state is JobState.DONE else ""
    )
    made = (await context.read(jobs.choices)).get(job_bundle) if job_bundle else None
    source = (await context.read(jobs.scan_sources, [made]))[job_bundle] if made is not None else None
    return {
        "job": job,
        "progress": jobs.progress(job.job_id),
        # The text may hold file paths.
        "lines": await context.read(jobs.output, job) if admin else [],
        "report": report,
        "teach_report": taught,
        "worst": await context.read(frames.exported_as, files) if frames is not None else {},
        "can_admin": admin,
        "session": session_of(request),
        "job_bundle": job_bundle,
        "scan": source,
        "can_publish": jobs.publishes and may(request, Right.ADMIN, EVERYWHERE),
        "can_again": job.kind is JobKind.REPAIR and job.state in RESUMABLE,
        "live": context.models.live if context.models is not None else None,
    }


async def _page(context: ConsoleContext, request: Request) -> Response:
    try:
        jobs, job = await job_of(context, request)
    except RefusedActionError:
        return context.page(request, "missing.html", 404, what="This job does not exist.")
    shown = await _shown(context, jobs, job, request)
    return context.page(request, "job.html", **shown, stream=f"/jobs/{job.job_id}/live")


async def _live(context: ConsoleContext, streams: Streams, request: Request) -> Response:
    jobs, found = await job_of(context, request)
    header = header_changes(context, visible_to(request))
    shown: list[Progress | None] = []

    async def changed() -> str:
        parts = [header()]
        now = jobs.progress(found.job_id)
        if shown != [now]:
            job = await context.read(jobs.find, found.job_id)
            shown[:] = [now]
            if job is not None:
                parts.append(context.render("job_now.html", **await _shown(context, jobs, job, request), pushed=True))
        return "\n".join(part for part in parts if part)

    return streams.answer(request, changed)


async def _picture(context: ConsoleContext, request: Request) -> Response:
    jobs, job = await job_of(context, request)
    name = request.path_params["name"]
    picture = await context.read(jobs.picture, job, name) if name in PICTURES else b""
    if not picture:
        return error_response(404, "the picture is missing in this job's report")
    return Response(picture, media_type="image/png")
