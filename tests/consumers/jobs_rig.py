"""A console whose jobs run a stand-in for the command line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from sqlalchemy import insert

from consumers.console.jobs.jobs import Jobs, Launch
from consumers.console.jobs.rows import Job
from consumers.console.settings import JobSettings
from consumers.console.web import make_app
from consumers.database.tables import quarantine
from infra.local.process import Child
from schemas.runtime.supervisor import Process
from tests.consumers.console_rig import ConsoleRig
from tests.consumers.recorder_rig import CAMERA, PNG, Rig
from tests.waiting import until

COMMAND = Path(__file__).with_name("fake_command.py")
QUARANTINED = f"{CAMERA}/{1:016x}-7"


def fill_job_folder(folder: Path) -> Path:
    """Write the bundles and clean pictures that an operator puts into a folder of jobs. Return the folder."""
    for name in ("sick", "well"):
        bundle = folder / "bundles" / name
        bundle.mkdir(parents=True)
        (bundle / "model.toml").write_text(f'name = "{name}"\nversion = "1"\n')
    (folder / "bundles" / "none").mkdir()
    (folder / "clean.npz").write_bytes(b"")
    return folder


def quarantine_frame(recorder: Rig, folder: Path) -> None:
    """Put one frame into quarantine."""
    file = folder / "quarantine" / f"{QUARANTINED}.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(PNG)
    with recorder.engine.begin() as connection:
        connection.execute(insert(quarantine), [{"name": QUARANTINED, "at_ms": 5, "bytes": len(PNG)}])


def launcher(mode: str) -> Launch:
    """Return a function that starts the stand-in command in this mode."""

    def launch(arguments: Sequence[str], log: Path, variables: Mapping[str, str]) -> Child:
        return Child([sys.executable, "-IS", str(COMMAND), *arguments], log, env={"MODE": mode, **variables})

    return launch


@dataclass
class JobsRig:
    """A console whose jobs run the stand-in command."""

    folder: Path
    users: Path | None = None
    mode: str = "done"
    settings: dict[str, object] = field(default_factory=dict)
    console: ConsoleRig = field(init=False)
    variables: dict[str, str] = field(default_factory=dict)
    """Environment variables of the last job."""

    def __post_init__(self) -> None:
        jobs = JobSettings(
            folder=self.folder / "jobs", publish=("--signer", "key", "--store", "models"), rollback=("--signer", "key")
        ).model_copy(update=self.settings)
        self.console = ConsoleRig(self.folder, users=self.users, jobs=jobs, launch=self.launch)

    def launch(self, arguments: Sequence[str], log: Path, variables: Mapping[str, str]) -> Process:
        self.variables = dict(variables)
        return launcher(self.mode)(arguments, log, variables)

    @property
    def jobs(self) -> Jobs:
        assert self.console.context.jobs is not None
        return self.console.context.jobs

    @asynccontextmanager
    async def browser(self) -> AsyncIterator[httpx2.AsyncClient]:
        """Yield a browser in this event loop, where jobs continue between requests."""
        transport = httpx2.ASGITransport(make_app(self.console.context), client=("127.0.0.1", 5))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as browser:
            self.console.open_link(browser)
            yield browser

    def form(self, **fields: str) -> dict[str, str]:
        return fields | {"csrf": self.console.csrf()}

    async def finished_job(self) -> Job:
        """Wait until no job runs. Return the newest one."""
        await until(lambda: self.jobs.running is None)
        return self.jobs.newest()[0]

    async def log_with(self, words: str) -> str:
        """Wait until the newest job's log contains `words`. Return the log."""
        log = self.folder / "jobs" / "runs" / self.jobs.newest()[0].job_id / "log"
        await until(lambda: log.is_file() and words in log.read_text())
        return log.read_text()

    def arguments(self, job: Job) -> list[str]:
        """Return the arguments of a job's first command."""
        log = self.folder / "jobs" / "runs" / job.job_id / "log"
        found: list[str] = json.loads(log.read_text().splitlines()[0])["arguments"]
        return found

    async def pid(self) -> int:
        """Return the process id of the child that hangs."""
        found = re.search(r"pid (\d+)\n", await self.log_with("pid "))
        assert found is not None
        return int(found[1])

    async def close(self) -> None:
        await self.jobs.stop()
        self.console.close()
