"""Jobs: repair from the quarantine, publish and roll back; each with its progress by push, its report and its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from consumers.console.bundles import OWN
from consumers.console.desk import Desk
from consumers.console.flagged import cameras_of
from consumers.console.fleet_page import header_changes
from consumers.console.gate import form_of, may, no, session_of
from consumers.console.job_output import PICTURES, Progress
from consumers.console.job_rows import Job, JobState, Kind
from consumers.console.jobs import AGAIN, Jobs
from consumers.console.stream import Streams
from consumers.console.users import Right
from schemas.errors import ConfigError, StateError, UserError

NONE = "this console starts no jobs: it was started without jobs.folder"
Act = Callable[[Desk, Jobs, str, dict[str, Any]], Awaitable[Job]]
"""Starts or changes a job for who asks, by what was sent."""


def job_routes(desk: Desk, streams: Streams) -> list[Route]:
    """Their routes."""
    return [
        *(Route(f"/jobs/{name}", partial(_act, desk, act), methods=["POST"]) for name, act in STARTS.items()),
        Route("/jobs/{job_id}", partial(_page, desk)),
        Route("/jobs/{job_id}/live", partial(_live, desk, streams)),
        Route("/jobs/{job_id}/{name}.png", partial(_picture, desk)),
        *(
            Route(f"/jobs/{{job_id}}/{name}", partial(_act, desk, act), methods=["POST"])
            for name, act in CHANGES.items()
        ),
    ]


def text_of(sent: dict[str, Any], name: str) -> str:
    """One text of what was sent; ConfigError for anything else."""
    value = sent.get(name, "")
    if not isinstance(value, str):
        raise ConfigError(f"expected a text as {name}")
    return value


async def _repair(desk: Desk, jobs: Jobs, who: str, sent: dict[str, Any]) -> Job:
    camera = text_of(sent, "camera")
    if camera and camera not in await desk.read(lambda: cameras_of(desk.engine())):
        raise ConfigError("expected a camera with frames in quarantine, or none")
    return await jobs.repair(who, text_of(sent, "bundle"), camera)


async def _publish(_desk: Desk, jobs: Jobs, who: str, sent: dict[str, Any]) -> Job:
    return await jobs.publish(who, text_of(sent, "bundle"))


async def _roll_back(desk: Desk, jobs: Jobs, who: str, _sent: dict[str, Any]) -> Job:
    live = desk.models.live if desk.models is not None else None
    if live is None:
        raise ConfigError("expected a live model, none is published")
    return await jobs.roll_back(who, live.model_id)


async def _cancel(_desk: Desk, jobs: Jobs, who: str, sent: dict[str, Any]) -> Job:
    job = await _known(_desk, jobs, sent)
    await jobs.cancel(who, job)
    return job


async def _again(_desk: Desk, jobs: Jobs, who: str, sent: dict[str, Any]) -> Job:
    return await jobs.again(who, await _known(_desk, jobs, sent))


async def _known(desk: Desk, jobs: Jobs, sent: dict[str, Any]) -> Job:
    job = await desk.read(jobs.find, text_of(sent, "job_id"))
    if job is None:
        raise ConfigError("expected the id of a job")
    return job


STARTS: dict[str, Act] = {"repair": _repair, "publish": _publish, "rollback": _roll_back}
CHANGES: dict[str, Act] = {"cancel": _cancel, "continue": _again}


async def acted(desk: Desk, act: Act, request: Request, sent: dict[str, Any]) -> Job | Response:
    """The job that was started or changed, or a refusal in one line."""
    if not may(request, Right.ADMIN):
        return no(403, f"expected an {Right.ADMIN}")
    if desk.jobs is None:
        return no(409, NONE)
    try:
        return await act(desk, desk.jobs, session_of(request).name, sent | request.path_params)
    except StateError as error:
        return no(409, str(error))
    except UserError as error:
        return no(400, str(error))


async def _act(desk: Desk, act: Act, request: Request) -> Response:
    found = await acted(desk, act, request, dict(form_of(request)))
    return found if isinstance(found, Response) else RedirectResponse(f"/jobs/{found.job_id}", 303)


async def offered(desk: Desk) -> dict[str, Any]:
    """What pages that start jobs show: the jobs, the bundles, and what is missing."""
    jobs = desk.jobs
    if jobs is None:
        return {"jobs": None, "newest": [], "choices": [], "publishable": [], "usual": ""}
    choices = list((await desk.read(jobs.choices)).values())
    live = desk.models.live if desk.models is not None else None
    same = [each.choice_id for each in choices if live and each.name and live.model_id.startswith(f"{each.name}+")]
    return {
        "jobs": jobs,
        "newest": await desk.read(jobs.newest),
        "choices": choices,
        "publishable": [each for each in choices if each.choice_id != OWN],
        "usual": (same or [""])[-1],
    }


async def _shown(desk: Desk, jobs: Jobs, job: Job, request: Request) -> dict[str, Any]:
    admin = may(request, Right.ADMIN)
    ended = job.state is not JobState.RUNNING
    report = await desk.read(jobs.report, job) if ended and job.kind is Kind.REPAIR else None
    cured = job.kind is Kind.REPAIR and job.state is JobState.DONE
    return {
        "job": job,
        "progress": jobs.progress(job.job_id),
        # It may hold paths.
        "lines": await desk.read(jobs.output, job) if admin else [],
        "report": report,
        "can_admin": admin,
        "session": session_of(request),
        "cured": f"job-{job.job_id}" if cured else "",
        "can_publish": jobs.publishes,
        "can_again": job.kind is Kind.REPAIR and job.state in AGAIN,
    }


async def _page(desk: Desk, request: Request) -> Response:
    job_id, jobs = request.path_params["job_id"], desk.jobs
    job = await desk.read(jobs.find, job_id) if jobs is not None else None
    if jobs is None or job is None:
        return desk.page(request, "missing.html", 404, what="No such job is known.")
    shown = await _shown(desk, jobs, job, request)
    return desk.page(request, "job.html", **shown, stream=f"/jobs/{job_id}/live")


async def _live(desk: Desk, streams: Streams, request: Request) -> Response:
    jobs, job_id = desk.jobs, request.path_params["job_id"]
    if jobs is None or await desk.read(jobs.find, job_id) is None:
        return no(404, "no such job is known")
    header = header_changes(desk)
    shown: list[Progress | None] = []

    async def changed() -> str:
        parts = [header()]
        now = jobs.progress(job_id)
        if shown != [now]:
            job = await desk.read(jobs.find, job_id)
            shown[:] = [now]
            if job is not None:
                parts.append(desk.render("job_now.html", **await _shown(desk, jobs, job, request), pushed=True))
        return "\n".join(part for part in parts if part)

    return streams.answer(request, changed)


async def _picture(desk: Desk, request: Request) -> Response:
    jobs, name = desk.jobs, request.path_params["name"]
    job = await desk.read(jobs.find, request.path_params["job_id"]) if jobs is not None else None
    picture = await desk.read(jobs.picture, job, name) if jobs and job and name in PICTURES else b""
    if not picture:
        return no(404, "this job has no such picture")
    return Response(picture, media_type="image/png")
