"""The progress of `pointillist up`: a live table on a terminal, periodic lines elsewhere.

The table fits into 80 columns, and has a row for each camera that is not well.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from consumers.console.access.owner import owner_link
from infra.up.processes import Role
from infra.up.scrape import RunTotals, Samples
from infra.up.system_state import PAGES, CameraState
from schemas.batched import batched
from schemas.errors import PointillistError
from schemas.metrics import (
    ALERTS,
    CAMERA_BYTES,
    CAMERA_FRAMES,
    CAMERA_TRUTH,
    DEAD_LETTERS,
    END_TO_END,
    RECORDED,
    SECONDS,
    SPOOL_FRAMES,
    STRIP_FRAMES,
    TRUTH,
)

REFRESH_S = 1.0
LINE_S = 10.0
CAMERAS_S = 2.0
"""Seconds between two reads of the cameras that are not well and of the attached ones."""
LATELY_S: Final = 10.0
"""Seconds of recorded frames that the latency covers."""
MOST_NAMED: Final = 12
_SELDOM: Final = 20
"""Queries take at most one part in this many of the time."""
_PAIRS: Final = 3
"""Figures side by side."""


class LiveTable:
    """Frames a second, bytes saved, latency, accuracy, alerts, from the roles' metrics."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._broken: Callable[[], Sequence[CameraState]] = tuple
        self._system: Callable[[], str] = str
        self._printed_system = ""
        self._named: Sequence[CameraState] = ()
        self._attached: Callable[[], int] = int
        self._state_option = ""
        self._published_by_attached = 0
        self._looked_at = 0.0
        self._totals = RunTotals()
        self._recent: deque[tuple[float, Samples]] = deque()
        self._roles: dict[str, Role] = {}
        self._live: Live | None = None
        self._next = 0.0
        self._startup_s = 0.0
        self._last: tuple[float, float] | None = None

    def print_line(self, line: str) -> None:
        """Print one line of progress. Its target may be on a full disk, or closed: the run continues."""
        with suppress(OSError):
            self._console.print(line, highlight=False, markup=False)

    def begin(
        self,
        roles: dict[str, Role],
        startup_s: float,
        broken: Callable[[], Sequence[CameraState]] = tuple,
        attached: Callable[[], int] = int,
        system: Callable[[], str] = str,
        state_option: str = "",
    ) -> None:
        """Show the system, which is ready, from now on.

        `broken` returns the cameras that are not well, and `attached` the published frames of cameras outside the
        fleet. `system` returns a line on the roles and rules, empty when all is well. Printed commands have the
        `state_option`.
        """
        self._state_option = state_option
        self._system = system
        self._roles = roles
        self._broken = broken
        self._attached = attached
        self._startup_s = startup_s
        cameras = "cameras start" if any(name.startswith("fleet") for name in roles) else "waiting for cameras"
        self.print_line(f"ready after {startup_s:.1f} s; {cameras}")
        for name, called in PAGES.items():
            role = roles.get(name)
            # The recorder's port is for programs; Grafana starts later than all others and prints its address itself.
            if role is not None and name not in ("recorder", "grafana") and role.listen():
                url = f"{role.url or f'http://{role.listen()}'}/"
                # The link is a secret: it goes to a person's terminal, never to a log.
                if self._console.is_terminal and role.owner_file is not None:
                    url = owner_link(url, role.owner_file)
                self.print_line(f"{called}: {url}")
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            with suppress(OSError):
                self._live.start()

    def tick(self) -> None:
        """Refresh when the interval is over."""
        now = time.monotonic()
        self._print_system()
        if now < self._next or not self._roles:
            return
        self._next = now + (REFRESH_S if self._live else LINE_S)
        if now >= self._looked_at:
            # The recorder may be creating a new database, or the database is of another release.
            with suppress(PointillistError, SQLAlchemyError):
                self._named = self._broken() if self._live else ()
                self._published_by_attached = self._attached()
            # Queries must not slow down the recorder, however many cameras there are.
            self._looked_at = now + max(CAMERAS_S, _SELDOM * (time.monotonic() - now))
        cells = self._cells(now)
        if self._live is None:
            self.print_line(", ".join(f"{name} {value}" for name, value in cells.items()))
            return
        with suppress(OSError):
            line = [Text(self._system(), style="bold red")] if self._system() else []
            self._live.update(Group(figures(cells), *line, *broken_rows(self._named, self._state_option)), refresh=True)

    def _print_system(self) -> None:
        """Print the status of the system when it has changed and there is no live table."""
        now = self._system()
        if self._live is None and self._roles and now != self._printed_system:
            self.print_line(f"not well: {now}" if now else "all roles are up again, and no rule fires")
            self._printed_system = now

    def stopping(self) -> None:
        """List no camera as not well from now on: the cameras end because the run does."""
        self._broken, self._named = tuple, ()

    def end(self) -> None:
        """Leave the last table on the screen."""
        if self._live is not None:
            with suppress(OSError):
                self._live.stop()
            self._live = None
        self._roles = {}

    def _cells(self, now: float) -> dict[str, str]:
        samples = self._totals.scrape([role.metrics for role in self._roles.values() if role.metrics])
        recorded = samples.sum(RECORDED.name, outcome="recorded")
        rate = (recorded - self._last[1]) / (now - self._last[0]) if self._last else 0.0
        self._last = (now, recorded)
        raw = samples.sum(CAMERA_BYTES.name, kind="raw")
        sent = samples.sum(CAMERA_BYTES.name, kind="sent")
        known = samples.sum(TRUTH.name)
        attacked = samples.sum(CAMERA_TRUTH.name, picture="attacked")
        robust = samples.sum(CAMERA_TRUTH.name, picture="attacked", result="correct")
        published = samples.sum(CAMERA_FRAMES.name, outcome="published") + self._published_by_attached
        return {
            "published": f"{published:.0f}",
            "recorded": f"{recorded:.0f}",
            "frames/s": f"{rate:.1f}",
            "in spool": f"{samples.sum(SPOOL_FRAMES.name):.0f}",
            "bytes saved": f"{1 - sent / raw:.1%}" if raw else "-",
            "p99 latency": self._latency(now, samples),
            "accuracy": f"{samples.sum(TRUTH.name, result='correct') / known:.1%}" if known else "-",
            **({"under attack": f"{robust / attacked:.1%}"} if attacked else {}),
            "STRIP checks": f"{samples.sum(STRIP_FRAMES.name, outcome='checked'):.0f}",
            "alerts": f"{samples.sum(ALERTS.name):.0f}",
            "dead letters": f"{samples.sum(DEAD_LETTERS.name):.0f}",
        }

    def _latency(self, now: float, samples: Samples) -> str:
        """Return the 99th percentile over the frames recorded lately; `-` without any."""
        while len(self._recent) > 1 and self._recent[1][0] <= now - LATELY_S:
            self._recent.popleft()
        lately = samples.since(self._recent[0][1]) if self._recent else samples
        self._recent.append((now, samples))
        p99 = lately.quantile(0.99, END_TO_END.name)
        if p99 is None:
            return "-"
        return f"≤ {p99:g} s" if p99 < math.inf else f"> {SECONDS[-1]:g} s"


def figures(cells: dict[str, str]) -> Table:
    """Return names and values, several pairs in a row."""
    table = Table(title="Pointillist", title_justify="left", show_header=False)
    for _ in range(_PAIRS):
        table.add_column()
        table.add_column(justify="right", style="bold")
    for pairs in batched(list(cells.items()), _PAIRS):
        table.add_row(*(each for pair in pairs for each in pair))
    return table


def broken_rows(cameras: Sequence[CameraState], state_option: str) -> list[Table | Text]:
    """Return a row for each camera that is not well, up to a limit; then the command that lists all of them."""
    if not cameras:
        return []
    table = Table("camera", "state", "reason", title=f"not well: {len(cameras)}", title_justify="left")
    for each in cameras[:MOST_NAMED]:
        table.add_row(Text(each.name), each.state, Text(each.detail))
    more = len(cameras) - MOST_NAMED
    if more <= 0:
        return [table]
    # On a line of its own, a command can be copied whole.
    return [table, Text(f"and {more} more:"), Text(f"pointillist cameras --broken {state_option}")]
