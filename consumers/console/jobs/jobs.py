"""Jobs: the command line as a child process, one at a time, started and stopped from the pages.

The console imports neither the laboratory nor the signing code. Its caller passes in the function that starts a child.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import structlog

from consumers.console.access.sight import ALL, Sight, site_of
from consumers.console.data.label_folders import export_folder
from consumers.console.data.labelled_frames import ENOUGH, LabelledFrames
from consumers.console.data.store import Store
from consumers.console.jobs import rows as job_rows
from consumers.console.jobs.bundles import OWN, BundleChoice, default_bundle, job_bundles, operator_bundles
from consumers.console.jobs.commands import CLEAN, FIGURES, LABELS, OUT, arguments_of
from consumers.console.jobs.output import (
    PICTURES_FOLDER,
    Progress,
    Report,
    TeachReport,
    last_message,
    progress_of,
    report_of,
    tail_of,
    teach_report_of,
)
from consumers.console.jobs.quarantine_copies import QuarantineCopies
from consumers.console.jobs.rows import CANDIDATES, Job, JobKind, JobState
from consumers.console.jobs.scans import ScanSource, scan_source
from consumers.console.settings import JobSettings
from schemas.clock import unix_ms
from schemas.errors import ConfigError, StateError, UserError, first_line
from schemas.runtime.file_lock import lock_file
from schemas.runtime.supervisor import Cause, Process, Supervisor
from schemas.runtime.worker_threads import WorkerThreads

LOG: Final = "log"
POLL_INTERVAL_S: Final = 0.5
STOP_S: Final = 4.0
"""Seconds from the request to stop to the kill: less than a supervisor's stop timeout for the console."""
KEPT: Final = 30
"""Maximum number of stored jobs of each site, with their folders; as many jobs for the whole fleet."""
SHOWN: Final = 10
ID: Final = re.compile(r"[0-9a-f]{16}")
RESUMABLE: Final = (JobState.CANCELLED, JobState.INTERRUPTED)
"""States from which a repair can be resumed."""

_BUNDLE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

log = structlog.get_logger()


Launch = Callable[[Sequence[str], Path, Mapping[str, str]], Process]
"""Creates a child process from arguments, the file to which its output is appended, and its own environment
variables."""
Write = Callable[..., Awaitable[Any]]
"""Runs a function that writes to the console's database, outside the event loop."""


@dataclass
class _RunningJob:
    job: Job
    progress: Progress = field(default_factory=lambda: Progress("begins"))
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    _requested: JobState | None = None

    def request_end(self, why: JobState) -> None:
        """Request the job's end before it is finished."""
        self._requested = why
        self.wake.set()

    def requested_end(self) -> JobState | None:
        """Return the reason of the requested end; None if there was no request."""
        return self._requested


class Jobs:
    """The jobs of one folder. For one event loop."""

    def __init__(
        self,
        settings: JobSettings,
        store: Store,
        launch: Launch,
        write: Write,
        copies: QuarantineCopies,
        on_change: Callable[[], None],
        labelled_frames: LabelledFrames | None = None,
    ) -> None:
        """Open the folder. Raises ConfigError if it cannot be created, StateError if another console holds it."""
        self.settings = settings
        self._engine, self._note = store.engine, store.note
        self._launch, self._write, self._copies, self._on_change = launch, write, copies, on_change
        self._labelled_frames = labelled_frames
        self._runs = settings.folder / "runs"
        self._run_in_thread = WorkerThreads(2, "jobs")
        self._running: _RunningJob | None = None
        self._task: asyncio.Task[None] | None = None
        self._lock = _claimed(settings.folder, self._runs)
        for job in job_rows.interrupt(self._engine):
            self._note(job.who, job.kind, job.subject, job.job_id, JobState.INTERRUPTED, site_of(job.camera))
            shutil.rmtree(self._place(job.job_id) / LABELS, ignore_errors=True)

    # Queries

    @property
    def publishes(self) -> bool:
        """Whether the operator has configured publication."""
        return self.settings.publish is not None and self.settings.rollback is not None

    @property
    def repairs(self) -> bool:
        """Whether clean pictures are configured, which repairs need."""
        return (self.settings.folder / CLEAN).is_file()

    @property
    def running(self) -> Job | None:
        """The running job, None if there is none."""
        return self._running.job if self._running is not None else None

    def choices(self, sight: Sight = ALL) -> dict[str, BundleChoice]:
        """Return the bundles that a job may use, by id: those of the operator, and those that jobs of these sites made.

        Blocks.
        """
        done = sorted(job_rows.with_bundles(self._engine, sight), key=lambda job: job.kind is JobKind.TEACH)
        found = [
            *default_bundle(self.settings.bundle),
            *operator_bundles(self.settings.folder / "bundles"),
            *job_bundles(done, lambda job: self._place(job.job_id) / OUT),
        ]
        return {choice.choice_id: choice for choice in found}

    def scan_sources(self, choices: Iterable[BundleChoice]) -> dict[str, ScanSource]:
        """Return the source of clean pictures for the backdoor scan of each bundle, by id. Blocks."""
        labels = self._labelled_frames.counts() if self._labelled_frames is not None else {}
        return {each.choice_id: scan_source(each, labels, self.settings.folder / CLEAN) for each in choices}

    def newest(self, limit: int = SHOWN, sight: Sight = ALL) -> list[Job]:
        """Return the newest jobs of these sites first. Blocks."""
        return job_rows.newest(self._engine, limit, sight)

    def find(self, job_id: str) -> Job | None:
        """Return one job; None for an invalid or unknown id. Blocks."""
        return job_rows.find(self._engine, job_id) if ID.fullmatch(job_id) else None

    def progress(self, job_id: str) -> Progress | None:
        """Return the progress of a running job."""
        now = self._running
        return now.progress if now is not None and now.job.job_id == job_id else None

    def output(self, job: Job) -> list[str]:
        """Return the last output lines of a job. Blocks."""
        return tail_of(self._place(job.job_id) / LOG)

    def report(self, job: Job) -> Report | None:
        """Return the report of a repair. Blocks."""
        place = self._place(job.job_id)
        return report_of(place / FIGURES, place / OUT)

    def teach_report(self, job: Job) -> TeachReport | None:
        """Return the report of a training from labels. Blocks."""
        return teach_report_of(self._place(job.job_id) / FIGURES)

    def picture(self, job: Job, name: str) -> bytes:
        """Return a report picture with a name in `PICTURES`; empty bytes if there is none. Blocks."""
        try:
            return (self._place(job.job_id) / OUT / PICTURES_FOLDER / f"{name}.png").read_bytes()
        except OSError:
            return b""

    def _place(self, job_id: str) -> Path:
        return self._runs / job_id

    # Actions

    async def repair(self, who: str, choice_id: str, camera: str, sight: Sight = ALL) -> Job:
        """Start the repair of a bundle with the quarantine of `camera` (empty: all cameras).

        `sight` limits the bundles, as for `choices`. Raises StateError while another job runs.
        """
        if not self.repairs:
            raise ConfigError(f"{CLEAN} is missing: put clean labelled pictures into the jobs folder")
        return await self._begin(who, JobKind.REPAIR, await self._chosen(choice_id, sight), camera)

    async def teach(self, who: str, name: str, *, thorough: bool) -> Job:
        """Start the training of a classifier from the classes with enough labels.

        Raises StateError while another job runs.
        """
        if self._labelled_frames is None:
            raise ConfigError("labels are missing: this console has no key to pictures")
        if not _BUNDLE.fullmatch(name):
            raise ConfigError(f"name: expected letters, digits, `.`, `_` and `-`, got {name[:80]!r}. Correct it.")
        return await self._begin(
            who, JobKind.TEACH, BundleChoice("", f"{name} thorough" if thorough else name, Path(), name)
        )

    async def publish(self, who: str, choice_id: str) -> Job:
        """Start to sign a bundle and make it the live model. Raises StateError while another job runs."""
        self._require_signer()
        if choice_id == OWN:
            raise ConfigError(
                "bundle: expected another one than the processors' default, which they serve if none is published"
            )
        return await self._begin(who, JobKind.PUBLISH, await self._chosen(choice_id))

    async def begin_rollout(self, who: str, choice_id: str, *, by_rule: bool = False) -> Job:
        """Start to scan a bundle, sign it and make it the candidate. Raises StateError while another job runs.

        `by_rule` permits the gate to promote it. Raises ConfigError if that lacks a scan.
        """
        self._require_signer()
        choice = await self._chosen(choice_id)
        source = (await self._run_in_thread(self.scan_sources, [choice]))[choice_id]
        if by_rule and not source.exists:
            raise ConfigError(f"by_rule: expected pictures for a backdoor scan: {source.lack}")
        return await self._begin(who, JobKind.CANDIDATE_BY_RULE if by_rule else JobKind.CANDIDATE, choice)

    async def change_model(self, who: str, kind: JobKind, model: str) -> Job:
        """Start to promote or dismiss the candidate `model`, or to withdraw the live one, by `kind`.

        Raises StateError while another job runs.
        """
        self._require_signer()
        return await self._begin(who, kind, BundleChoice("", model, Path(), ""))

    async def resume(self, who: str, job: Job) -> Job:
        """Resume a cancelled or interrupted repair. Raises StateError while another job runs."""
        if job.kind is not JobKind.REPAIR or job.state not in RESUMABLE:
            raise ConfigError("job: expected a cancelled or interrupted repair")
        await self._chosen(job.bundle)
        fresh = replace(job, who=who, at_ms=unix_ms(), ended_ms=None, state=JobState.RUNNING, outcome="")
        return await self._run_now(fresh)

    async def cancel(self, who: str, job: Job) -> None:
        """Cancel the running job. Raises ConfigError if it does not run."""
        now = self._running
        if now is None or now.job.job_id != job.job_id:
            raise ConfigError("job: expected a running one")
        now.request_end(JobState.CANCELLED)
        await self._write(
            self._note, who, "cancel", job.subject, job.job_id, "cancellation requested", site_of(job.camera)
        )

    def _require_signer(self) -> None:
        if not self.publishes:
            raise ConfigError("jobs.signer is missing: set it to publish or roll back models")

    async def _chosen(self, choice_id: str, sight: Sight = ALL) -> BundleChoice:
        choice = (await self._run_in_thread(self.choices, sight)).get(choice_id)
        if choice is None:
            raise ConfigError("bundle: expected the id of a bundle in the jobs folder")
        return choice

    async def _begin(self, who: str, kind: JobKind, choice: BundleChoice, camera: str = "") -> Job:
        job_id = secrets.token_hex(8)
        return await self._run_now(Job(job_id, kind, choice.choice_id, choice.label, camera, who, unix_ms()))

    async def _run_now(self, job: Job) -> Job:
        if self._running is not None:
            raise StateError(f"job: expected no other job, {self._running.job.kind} is running. Try again later.")
        now = self._running = _RunningJob(job)
        try:
            # The line first: if only the row were written, the job would show as running.
            await self._write(self._note, job.who, job.kind, job.subject, job.job_id, "started", site_of(job.camera))
            await self._write(job_rows.begin, self._engine, job)
        except BaseException:
            self._running = None
            raise
        self._task = asyncio.create_task(self._carry_out(now), name="job")
        return job

    async def _carry_out(self, now: _RunningJob) -> None:
        job = now.job
        state, outcome = JobState.FAILED, "internal error: see the console's log"
        try:
            state, outcome = await self._child(now)
        except (UserError, OSError) as error:
            outcome = first_line(error)
        except Exception as error:  # the page shows the error; the console continues
            log.exception("job_failed", kind=str(job.kind))
            outcome = f"{outcome}: {type(error).__name__}"
        try:
            await self._write(job_rows.end, self._engine, job.job_id, state, outcome)
            words = f"{state}: {outcome}" if outcome else str(state)
            await self._write(self._note, job.who, job.kind, job.subject, job.job_id, words, site_of(job.camera))
            for old in await self._write(job_rows.forget_old, self._engine, KEPT):
                await self._run_in_thread(shutil.rmtree, self._place(old), True)
        except Exception:  # own database: an unwritten outcome becomes `interrupted` at the next start
            log.exception("job_not_noted", kind=str(job.kind))
        finally:
            if job.kind in (JobKind.TEACH, *CANDIDATES):  # the labels in the quarantine are sealed, this copy is not
                await self._run_in_thread(shutil.rmtree, self._place(job.job_id) / LABELS, True)
            self._running = None
            self._on_change()

    async def _child(self, now: _RunningJob) -> tuple[JobState, str]:
        arguments = await self._run_in_thread(self._prepared, now)
        if (why := now.requested_end()) is not None:
            return why, "stopped before it began"
        is_repair = now.job.kind is JobKind.REPAIR
        variables = self._copies.variables(now.job.job_id) if is_repair else {}
        is_long = now.job.kind in (JobKind.REPAIR, JobKind.TEACH, *CANDIDATES)
        limit_s = self.settings.repair_s if is_long else self.settings.model_s
        written = self._place(now.job.job_id) / LOG
        now.progress = Progress("starts")

        async def watch() -> None:
            progress = await self._run_in_thread(progress_of, written)
            if progress is not None and progress != now.progress:
                now.progress = progress
                self._on_change()

        child = Supervisor(self._launch(arguments, written, variables))
        status, cause = await child.run(now.wake, STOP_S, poll_s=POLL_INTERVAL_S, limit_s=limit_s, on_poll=watch)
        if cause is Cause.EXPIRED:
            return JobState.FAILED, f"stopped: it took longer than {limit_s:g} s"
        if cause is Cause.STOPPED and (why := now.requested_end()) is not None:
            return why, f"stopped in phase {now.progress.phase}"
        if status is not None and status < 0:  # the last line of its output is no reason
            hint = ". The system does so if memory runs out." if -status == signal.SIGKILL else ""
            return JobState.FAILED, f"killed by {signal.Signals(-status).name}{hint}"
        words = await self._run_in_thread(last_message, written)
        if status != 0:
            return JobState.FAILED, words or f"exit status {status}"
        return JobState.DONE, "" if now.job.kind in (JobKind.REPAIR, JobKind.TEACH) else words

    def _prepared(self, now: _RunningJob) -> list[str]:
        job = now.job
        place = self._place(job.job_id)
        place.mkdir(parents=True, exist_ok=True)
        (place / LOG).unlink(missing_ok=True)  # an old log would show old progress
        if job.kind is JobKind.TEACH:
            shutil.rmtree(place / OUT, ignore_errors=True)
            self._copy_labels(now, self._trainable())
        if job.kind in (JobKind.ROLLBACK, JobKind.PROMOTE, JobKind.DISMISS, JobKind.TEACH):
            return arguments_of(self.settings, job, None, place)
        choice = self.choices().get(job.bundle)
        if choice is None:
            raise ConfigError(f"the bundle {job.subject} is missing")
        if job.kind is JobKind.REPAIR:
            now.progress = Progress("copying the quarantine")
            self._copies.copy(job.job_id, job.camera, place, lambda: now.requested_end() is not None)
        source = self.scan_sources([choice])[choice.choice_id] if job.kind in CANDIDATES else None
        if source is not None and source.labels:
            self._copy_labels(now, choice.classes)
        return arguments_of(self.settings, job, choice, place, source)

    def _trainable(self) -> list[str]:
        """Return the classes with enough labels. The page has named the other ones."""
        assert self._labelled_frames is not None
        found = [name for name, count in self._labelled_frames.counts().items() if count >= ENOUGH]
        if len(found) < 2:
            raise ConfigError(f"labels: expected two classes of {ENOUGH} or more, got {len(found)}. Label more.")
        return found

    def _copy_labels(self, now: _RunningJob, classes: Sequence[str]) -> None:
        assert self._labelled_frames is not None
        now.progress = Progress("copying the labels")
        folder = self._place(now.job.job_id) / LABELS
        shutil.rmtree(folder, ignore_errors=True)
        export_folder(self._labelled_frames, folder, lambda: now.requested_end() is not None, classes)

    async def stop(self) -> None:
        """Stop the running job as interrupted. Blocks for little longer than `STOP_S`."""
        if self._running is not None:
            self._running.request_end(JobState.INTERRUPTED)
        if self._task is not None:
            await asyncio.wait([self._task])

    def close(self) -> None:
        """Release the folder."""
        self._run_in_thread.close()
        os.close(self._lock)


def _claimed(folder: Path, runs: Path) -> int:
    try:
        runs.mkdir(parents=True, exist_ok=True, mode=0o700)
        return lock_file(folder / "lock")
    except BlockingIOError:
        raise StateError(f"jobs.folder: expected a folder that no other console uses, got {folder}") from None
    except OSError as error:
        raise ConfigError(f"jobs.folder: expected a writable folder, got {folder}: {error.strerror}") from None
