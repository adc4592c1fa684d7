"""Jobs as rows of the console's own database: kind, user and outcome."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Engine, Table, Text, delete, select, update

from consumers.console.access.sight import Sight, site_of
from consumers.database.console_store import metadata
from schemas.clock import unix_ms


class JobKind(StrEnum):
    """The kind of a job."""

    REPAIR = "repair"
    PUBLISH = "publish"
    ROLLBACK = "roll back"
    TEACH = "teach"
    CANDIDATE = "candidate"
    CANDIDATE_BY_RULE = "candidate by rule"
    PROMOTE = "promote"
    DISMISS = "dismiss"


CANDIDATES: Final = (JobKind.CANDIDATE, JobKind.CANDIDATE_BY_RULE)


class JobState(StrEnum):
    """The state of a job."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """The console ended while the job ran, and the job with it."""


@dataclass(frozen=True)
class Job:
    """One job. `bundle` is the id of a choice, `subject` its readable name; `camera` is empty for all cameras."""

    job_id: str
    kind: JobKind
    bundle: str
    subject: str
    camera: str
    who: str
    at_ms: int
    ended_ms: int | None = None
    state: JobState = JobState.RUNNING
    outcome: str = ""


_LONGEST: Final = 500
_TEXTS: Final = ("kind", "bundle", "subject", "camera", "who", "state", "outcome")

jobs = Table(
    "console_jobs",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("at_ms", BigInteger, nullable=False, index=True),
    Column("ended_ms", BigInteger),
    *(Column(name, Text, nullable=False) for name in _TEXTS),
)


def begin(engine: Engine, job: Job) -> None:
    """Store a running job. A resumed job replaces its earlier row."""
    with engine.begin() as connection:
        connection.execute(delete(jobs).where(jobs.c.job_id == job.job_id))
        connection.execute(jobs.insert().values(asdict(job)))


def end(engine: Engine, job_id: str, state: JobState, outcome: str) -> None:
    """Store the outcome of a job."""
    values = {"state": state, "outcome": outcome[:_LONGEST], "ended_ms": unix_ms()}
    with engine.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(values))


def interrupt(engine: Engine) -> list[Job]:
    """Mark the jobs that an earlier console left running as interrupted. Return them."""
    left = _of(engine, jobs.c.state == JobState.RUNNING)
    for job in left:
        end(engine, job.job_id, JobState.INTERRUPTED, "the console stopped, and the job with it")
    return left


def newest(engine: Engine, limit: int, sight: Sight) -> list[Job]:
    """Return the newest jobs of these sites first. A job for all cameras is of no site."""
    return _of(engine, sight.where(jobs.c.camera))[:limit]


def with_bundles(engine: Engine, sight: Sight) -> list[Job]:
    """Return the finished jobs of these sites that make a bundle, the newest first."""
    made = jobs.c.kind.in_((JobKind.REPAIR, JobKind.TEACH))
    return _of(engine, made, jobs.c.state == JobState.DONE, sight.where(jobs.c.camera))


def find(engine: Engine, job_id: str) -> Job | None:
    """Return one job; None if the id is unknown."""
    return next(iter(_of(engine, jobs.c.job_id == job_id)), None)


def forget_old(engine: Engine, kept: int) -> list[str]:
    """Delete all but the newest jobs of each site. Return the ids of the deleted ones.

    A site deletes nothing of another one. Jobs for the whole fleet are a group of their own.
    """
    by_site = defaultdict[str, list[Job]](list)
    for job in _of(engine):
        by_site[site_of(job.camera)].append(job)
    old = [job.job_id for some in by_site.values() for job in some[kept:] if job.state is not JobState.RUNNING]
    with engine.begin() as connection:
        connection.execute(delete(jobs).where(jobs.c.job_id.in_(old)))
    return old


def _of(engine: Engine, *where: Any) -> list[Job]:
    with engine.begin() as connection:
        rows = connection.execute(select(jobs).where(*where).order_by(jobs.c.at_ms.desc())).mappings()
        return [Job(**row | {"kind": JobKind(row["kind"]), "state": JobState(row["state"])}) for row in map(dict, rows)]
