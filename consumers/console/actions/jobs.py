"""Starts and changes of jobs, and the bundles that jobs may use."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from consumers.console.access.error_response import error_response
from consumers.console.access.gate import session_of
from consumers.console.access.refusal import RefusedActionError
from consumers.console.access.rights import RightScope
from consumers.console.access.sites import require, sight_of, visible_to
from consumers.console.actions.changes import text_of
from consumers.console.context import ConsoleContext, unless_away
from consumers.console.data.quarantined import cameras_of
from consumers.console.jobs.bundles import OWN
from consumers.console.jobs.jobs import SHOWN, Jobs
from consumers.console.jobs.rows import Job, JobKind
from schemas.errors import BrokerError, ConfigError, StateError, UserError
from schemas.messages.rollout import slots

NONE = "jobs.folder is missing: set it to start jobs from this console"
UNKNOWN = "job: expected the id of a stored job"
Act = Callable[[ConsoleContext, Jobs, Request, dict[str, Any]], Awaitable[Job]]
"""Starts or changes a job for the user of a request, from the submitted values."""


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
    except BrokerError:
        raise
    except UserError as error:
        return error_response(400, str(error))


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
