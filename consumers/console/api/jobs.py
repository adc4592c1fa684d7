"""The job operations of the REST API."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from consumers.console.access.error_response import error_response
from consumers.console.access.rights import Right, RightScope
from consumers.console.access.sites import sight_of
from consumers.console.actions.jobs import CHANGES, NONE, STARTS, Act, job_choices, job_of, run_action, start_reach
from consumers.console.api.operation import OBJECT, TEXT, Operation, fields, json_of
from consumers.console.context import ConsoleContext
from consumers.console.jobs.jobs import KEPT, Jobs
from consumers.console.jobs.rows import Job, JobKind

_ACCEPTED: Final = "`job_id` and `state` of the job."


def _json(jobs: Jobs, job: Job) -> dict[str, Any]:
    progress = jobs.progress(job.job_id)
    return asdict(job) | {"progress": asdict(progress) if progress is not None else None}


async def _all(context: ConsoleContext, request: Request) -> Response:
    if context.jobs is None:
        return error_response(409, NONE)
    jobs, offer = context.jobs, await job_choices(context, request)
    return JSONResponse(
        {
            "jobs": [_json(jobs, job) for job in await context.read(jobs.newest, KEPT, sight_of(request))],
            "bundles": [
                {"bundle": each.choice_id, "label": each.label, "name": each.name} for each in offer["choices"]
            ],
            "repairs": jobs.repairs,
            "publishes": jobs.publishes,
        }
    )


async def _one(context: ConsoleContext, request: Request) -> Response:
    jobs, job = await job_of(context, request)
    report = await context.read(jobs.report, job) if job.kind is JobKind.REPAIR else None
    return JSONResponse(_json(jobs, job) | {"figures": report.figures if report is not None else None})


async def _act(act: Act, context: ConsoleContext, request: Request) -> Response:
    found = await run_action(context, act, request, await json_of(request))
    return found if isinstance(found, Response) else JSONResponse({"job_id": found.job_id, "state": found.state}, 202)


def _start(name: str, summary: str, required: str, **others: dict[str, Any]) -> Operation:
    return Operation(
        "POST",
        f"/jobs/{name}",
        summary,
        partial(_act, STARTS[name]),
        _ACCEPTED,
        body=fields(required, **{required: TEXT}, **others),
        needed=Right.ADMIN,
        reach=start_reach(name),
        status=202,
    )


def _change(name: str, summary: str) -> Operation:
    return Operation(
        "POST",
        f"/jobs/{{job_id}}/{name}",
        summary,
        partial(_act, CHANGES[name]),
        _ACCEPTED,
        body=OBJECT,
        needed=Right.ADMIN,
        reach=RightScope.PART,
        status=202,
    )


JOB_OPERATIONS: Final = (
    Operation(
        "GET",
        "/jobs",
        "The newest jobs, and the bundles that jobs may use",
        _all,
        "`jobs`, newest first; `bundles`; `repairs` and `publishes`, whether this console can do so.",
        reach=RightScope.PART,
    ),
    Operation(
        "GET",
        "/jobs/{job_id}",
        "One job, and the figures of a repair",
        _one,
        "The job, its `progress`, and `figures` of a repair.",
        reach=RightScope.PART,
    ),
    _start("repair", "Repair a bundle with the quarantine of one camera or all", "bundle", camera=TEXT),
    _start("publish", "Sign a bundle and make it the live model", "bundle"),
    _start("rollback", "Withdraw the live model, if it is still `model`", "model"),
    _start(
        "candidate",
        "Scan a bundle, sign it and begin its rollout as shadow; with `by_rule` yes the gate may promote it",
        "bundle",
        by_rule=TEXT,
    ),
    _start("promote", "Make the candidate the live model, if the gate has passed it and it is still `model`", "model"),
    _start("dismiss", "End the rollout, if its candidate is still `model`", "model"),
    _change("cancel", "Cancel a running job"),
    _change("continue", "Resume a cancelled or interrupted repair"),
)
