"""The console's application context: fleet, stores and templates, shared by all pages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from consumers.console.access.gate import path_of, session_of
from consumers.console.access.logins import LoginMethods, Logins
from consumers.console.access.rights import Right
from consumers.console.access.sight import ALL, Sight
from consumers.console.access.sites import may, visible_to
from consumers.console.data.appearance import FeatureExtractor
from consumers.console.data.commands import Commands
from consumers.console.data.drop_plan import DropPlan
from consumers.console.data.export import MOST_EXPORTS, export_places
from consumers.console.data.fleet import Fleet
from consumers.console.data.kept_clips import KeptClips
from consumers.console.data.labelled_frames import LabelledFrames
from consumers.console.data.prometheus import Prometheus
from consumers.console.data.rate_text import frame_rate
from consumers.console.data.roles import ReadRoles
from consumers.console.data.sentences import initial
from consumers.console.data.site_poller import SitePoller
from consumers.console.data.store import Store
from consumers.console.data.system_watch import SystemWatch
from consumers.console.data.views import Views
from consumers.console.jobs.jobs import Jobs
from consumers.console.query_threads import QueryThreads
from consumers.console.settings import ConsoleSettings
from consumers.database.changes import change_recorded
from consumers.database.console_store import AuditLog, Review
from consumers.database.recorded import RecorderDatabase
from schemas.clock import unix_ms
from schemas.errors import UserError
from schemas.keys.keys import KeyRing
from schemas.messages.models_records import ModelsRecords
from schemas.runtime.health import Health
from schemas.runtime.moment import format_utc
from schemas.runtime.worker_threads import WorkerThreads

P = ParamSpec("P")
T = TypeVar("T")

HERE: Final = Path(str(files("consumers.console")))
PAGES: Final = (
    ("/", "Fleet"),
    ("/alerts", "Alerts"),
    ("/models", "Models"),
    ("/teach", "Teach"),
    ("/system", "System"),
    ("/dead-letters", "Dead letters"),
)
_RECORDER_THREADS: Final = 2
_OF_THE_FLEET: Final = ("/models", "/system")
"""Pages that need a role for all sites."""


async def unless_away(reading: Awaitable[T], otherwise: T) -> tuple[T, str]:
    """Return the result of a reading of the recorder's database, and ""; without it, `otherwise` and the reason."""
    try:
        return await reading, ""
    except UserError as error:
        return otherwise, str(error)


@dataclass
class ConsoleContext:
    """The context of one console."""

    settings: ConsoleSettings
    fleet: Fleet
    store: Store
    keys: KeyRing
    login_methods: LoginMethods = field(default_factory=LoginMethods)
    clock_s: Callable[[], float] = time.monotonic
    models: ModelsRecords | None = None
    health: Health | None = None
    commands: Commands | None = None
    """None disables commands to cameras."""
    drop_plan: DropPlan = field(default_factory=DropPlan)
    """The cameras under drop policies."""
    jobs: Jobs | None = None
    """None disables jobs."""
    labelled_frames: LabelledFrames | None = None
    """Frames to label; None for a console without the key to pictures."""
    feature_extractor: FeatureExtractor | None = None
    """Computes features of pictures; None compares frames to label by their sketches alone."""
    clips: KeptClips | None = None
    """Kept clips; None for a console without the key to pictures."""
    read_roles: ReadRoles | None = None
    """Reads the states of the system's roles; None reads them from Prometheus instead."""
    prometheus: Prometheus | None = None
    """None draws the system from the recorder's own history."""
    reviews: dict[str, Review] = field(default_factory=dict)
    """Decisions on alerts, by alert id."""
    sites: SitePoller | None = None
    """Sites of other consoles; None before the console is open."""
    views: Views | None = None
    """None asks processors for no more pictures than usual."""
    runbooks: Path | None = None
    """An HTML file with the runbooks; None serves none."""
    switch_due: asyncio.Event = field(default_factory=asyncio.Event)
    """Set after a switch of a group is saved, so that its commands go out at once."""
    read: QueryThreads = field(default_factory=lambda: QueryThreads(2, "reading", "the console's database"))
    """Runs queries of the console's own database."""
    use_recorder: QueryThreads = field(
        default_factory=lambda: QueryThreads(_RECORDER_THREADS, "recorded", "the recorder's database")
    )
    """Runs queries of the recorder's database, which may be slow."""
    read_long: WorkerThreads = field(default_factory=lambda: WorkerThreads(1, "long"))
    """Runs queries of the recorder's database that may take long: sums, and the search for frames to replay."""
    fetch: WorkerThreads = field(default_factory=lambda: WorkerThreads(4, "fetching"))
    """Reads files of the quarantine, which may be on another machine."""
    write: WorkerThreads = field(default_factory=lambda: WorkerThreads(1, "writing"))
    """Runs actions that write to the console's own database."""
    run_on_kept_files: WorkerThreads = field(default_factory=lambda: WorkerThreads(1, "kept"))
    """Runs actions on frames to label, whose files may be on another machine."""
    command: WorkerThreads = field(default_factory=lambda: WorkerThreads(8, "commands"))
    """Runs actions that command a camera and wait for its confirmation."""
    _change: WorkerThreads = field(default_factory=lambda: WorkerThreads(1, "changing"))

    def __post_init__(self) -> None:
        self.logins = Logins(self.login_methods, self.note, self.clock_s)
        self.sessions = self.logins.sessions
        self.filming = asyncio.Lock()
        # The poller, the long queries and the job that copies frames read it too.
        self.recorded = RecorderDatabase(self.settings.database, _RECORDER_THREADS + 3)
        # Before an export, one of those threads checks that it responds.
        self.exported = RecorderDatabase(self.settings.database, _RECORDER_THREADS + MOST_EXPORTS)
        self.watch = SystemWatch(self.fleet, self.read_roles, self.settings.prometheus)
        self.exports = export_places(logs_in=self.login_methods.logs_in)

    def published_ms(self) -> list[int]:
        """Times at which models were published or withdrawn, Unix time in milliseconds."""
        return self.models.changes_ms() if self.models is not None else []

    async def read_recorded(
        self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a query of the recorder's database, see `RecorderDatabase.read`."""
        return await self.use_recorder(lambda: self.recorded.read(query, *args, **kwargs))

    async def change_recorded(self, change: Callable[[Connection], T]) -> T:
        """Change the recorder's database, see `changes.change_recorded`, in a thread of its own: it may be slow."""
        return await self._change(change_recorded, self.settings.database, change)

    async def note(
        self,
        who: str,
        what: str,
        subject: str,
        detail: str,
        outcome: str,
        site: str | None = None,
        *,
        log: AuditLog = AuditLog.ACTIONS,
    ) -> None:
        """Write a line of the audit log, see `Store.note`."""
        await self.write(self.store.note, who, what, subject, detail, outcome, site, log=log)

    def render(self, template: str, **context: Any) -> str:
        """Render a part of a page."""
        return _TEMPLATES.get_template(template).render(context, picture_of=self.fleet.picture)

    def page(self, request: Request, template: str, status: int = 200, **context: Any) -> Response:
        """Render a whole page."""
        session, sight = session_of(request), visible_to(request)
        known: Mapping[str, Any] = {
            "path": path_of(request),
            "session": session,
            "pages": pages_for(sight),
            "sees_all": sight == ALL,
            "can_operate": may(request, Right.OPERATOR),
            "may_operate": partial(may, request, Right.OPERATOR),
            "can_admin": may(request, Right.ADMIN),
            "logs_in": self.login_methods.logs_in,
            "header": self.watch.header(sight),
            "now_ms": unix_ms(),
            "stream": "/live",
            "no_records": "",
            "runbooks": self.runbooks is not None,
        }
        return HTMLResponse(self.render(template, **{**known, **context}), status)

    def close(self) -> None:
        """Close threads and databases."""
        self.logins.close()
        readers, writers = (self.read, self.use_recorder, self.read_long, self.fetch), (self.write, self._change)
        for threads in (*readers, *writers, self.run_on_kept_files, self.command):
            threads.close()
        self.watch.close()
        if self.jobs is not None:
            self.jobs.close()
        if self.prometheus is not None:
            self.prometheus.close()
        self.recorded.close()
        self.exported.close()


def pages_for(sight: Sight) -> list[tuple[str, str]]:
    """Return the pages that a reader of these sites can open."""
    return [page for page in PAGES if sight == ALL or page[0] not in _OF_THE_FLEET]


def percent(share: float | None) -> str:
    """Format a fraction as a percentage with at most three digits."""
    return "–" if share is None else f"{100 * share:.{0 if abs(share) >= 0.9995 else 1}f} %"


def count(number: float) -> str:
    """Format a large number with thin spaces between thousands."""
    return f"{number:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def size(number: float) -> str:
    """Format a number of bytes."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
_TEMPLATES.filters |= {
    "percent": percent,
    "rate": frame_rate,
    "moment": format_utc,
    "count": count,
    "size": size,
    "initial": initial,
}
