"""The job operations of the REST API."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from consumers.console.desk import Desk
from consumers.console.gate import no
from consumers.console.job_rows import Job, Kind
from consumers.console.jobs import KEPT, Jobs
from consumers.console.jobs_page import CHANGES, NONE, STARTS, Act, acted, offered
from consumers.console.operation import OBJECT, TEXT, Operation, fields, json_of
from consumers.console.users import Right


def _json(jobs: Jobs, job: Job) -> dict[str, Any]:
    progress = jobs.progress(job.job_id)
    return asdict(job) | {"progress": asdict(progress) if progress is not None else None}


async def _all(desk: Desk, _request: Request) -> Response:
    if desk.jobs is None:
        return no(409, NONE)
    jobs, offer = desk.jobs, await offered(desk)
    return JSONResponse(
        {
            "jobs": [_json(jobs, job) for job in await desk.read(jobs.newest, KEPT)],
            "bundles": [
                {"bundle": each.choice_id, "label": each.label, "name": each.name} for each in offer["choices"]
            ],
            "repairs": jobs.repairs,
            "publishes": jobs.publishes,
        }
    )


async def _one(desk: Desk, request: Request) -> Response:
    jobs = desk.jobs
    job = await desk.read(jobs.find, request.path_params["job_id"]) if jobs is not None else None
    if jobs is None or job is None:
        return no(404, "job: expected the id of a stored job")
    report = await desk.read(jobs.report, job) if job.kind is Kind.REPAIR else None
    return JSONResponse(_json(jobs, job) | {"figures": report.figures if report is not None else None})


async def _act(act: Act, desk: Desk, request: Request) -> Response:
    sent = await json_of(request)
    if sent is None:
        return no(400, "body: expected a JSON object")
    found = await acted(desk, act, request, sent)
    return found if isinstance(found, Response) else JSONResponse({"job_id": found.job_id, "state": found.state}, 202)


def _start(name: str, summary: str, **body: dict[str, Any]) -> Operation:
    return Operation(
        "POST", f"/jobs/{name}", summary, partial(_act, STARTS[name]), body=fields(**body), needed=Right.ADMIN
    )


def _change(name: str, summary: str) -> Operation:
    return Operation(
        "POST", f"/jobs/{{job_id}}/{name}", summary, partial(_act, CHANGES[name]), body=OBJECT, needed=Right.ADMIN
    )


JOB_OPERATIONS: Final = (
    Operation(
        "GET",
        "/jobs",
        "The newest jobs, and the bundles that jobs may use",
        _all,
        "`jobs`, newest first; `bundles`; `repairs` and `publishes`, whether this console can do so.",
    ),
    Operation(
        "GET",
        "/jobs/{job_id}",
        "One job, and the figures of a repair",
        _one,
        "The job, its `progress`, and `figures` of a repair.",
    ),
    _start("repair", "Repair a bundle with the quarantine of one camera or all", bundle=TEXT, camera=TEXT),
    _start("publish", "Sign a bundle and make it the live model", bundle=TEXT),
    _start("rollback", "Withdraw the live model"),
    _change("cancel", "Cancel a running job"),
    _change("continue", "Resume a cancelled or interrupted repair"),
)
