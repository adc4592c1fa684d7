"""The jobs page: repair from the quarantine, publish and roll back, with live progress and reports."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from consumers.console.access.error_response import error_response
from consumers.console.access.gate import form_of, session_of
from consumers.console.access.refusal import RefusedActionError
from consumers.console.access.rights import EVERYWHERE, GuardedRoute, Right, RightScope
from consumers.console.access.sites import may, visible_to
from consumers.console.actions.jobs import CHANGES, STARTS, Act, job_of, run_action, start_reach
from consumers.console.context import ConsoleContext
from consumers.console.data.label_folders import frames_exported_as
from consumers.console.data.stream import Streams
from consumers.console.jobs.jobs import RESUMABLE, Jobs
from consumers.console.jobs.output import PICTURES, Progress
from consumers.console.jobs.rows import Job, JobKind, JobState
from consumers.console.pages.fleet import header_changes


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


async def submit_action(context: ConsoleContext, act: Act, request: Request) -> Response:
    """Start or change a job by the fields of a form. Return a redirect to the job's page, or a refusal in one line."""
    found = await run_action(context, act, request, dict(form_of(request)))
    return found if isinstance(found, Response) else RedirectResponse(f"/jobs/{found.job_id}", 303)


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
        "worst": await context.read(frames_exported_as, frames, files) if frames is not None else {},
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
