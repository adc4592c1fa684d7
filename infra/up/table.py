"""What `pointillist up` shows while it runs: a live table on a terminal, a line now and then elsewhere.

The table fits into 80 columns, and has a row for each camera that is not well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from infra.up.processes import Role
from infra.up.scrape import Samples
from infra.up.system_state import PAGES, CameraState
from schemas.errors import PointillistError
from schemas.metrics import (
    ALERTS,
    CAMERA_BYTES,
    CAMERA_FRAMES,
    CAMERA_TRUTH,
    DEAD_LETTERS,
    END_TO_END,
    RECORDED,
    SPOOL_FRAMES,
    STRIP_FRAMES,
    TRUTH,
)

REFRESH_S = 1.0
LINE_S = 10.0
CAMERAS_S = 2.0
"""How often the database is asked which cameras are not well."""
MOST_NAMED: Final = 12
_SELDOM: Final = 20
"""It is not asked for more than a twentieth of the time."""
_PAIRS: Final = 3
"""Figures side by side."""


class LiveTable:
    """Frames a second, bytes saved, latency, accuracy, alerts, from the roles' metrics."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._broken: Callable[[], Sequence[CameraState]] = tuple
        self._named: Sequence[CameraState] = ()
        self._named_at = 0.0
        self._roles: dict[str, Role] = {}
        self._live: Live | None = None
        self._next = 0.0
        self._startup_s = 0.0
        self._last: tuple[float, float] | None = None

    def say(self, line: str) -> None:
        """One line of progress. What shows it may lie on a full disk, or be gone: the run goes on without."""
        with suppress(OSError):
            self._console.print(line, highlight=False, markup=False)

    def begin(
        self, roles: dict[str, Role], startup_s: float, broken: Callable[[], Sequence[CameraState]] = tuple
    ) -> None:
        """The system is ready: show it from now on. `broken` gives the cameras that are not well."""
        self._roles = roles
        self._broken = broken
        self._startup_s = startup_s
        self.say(f"ready after {startup_s:.1f} s; cameras start")
        for name, called in PAGES.items():
            role = roles.get(name)
            # What the recorder says is for programs.
            if role is not None and name != "recorder" and role.listen():
                self.say(f"{called}: http://{role.listen()}/")
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()

    def tick(self) -> None:
        """Refresh when it is time to."""
        now = time.monotonic()
        if now < self._next or not self._roles:
            return
        self._next = now + (REFRESH_S if self._live else LINE_S)
        cells = self._cells(now)
        if self._live is None:
            self.say(", ".join(f"{name} {value}" for name, value in cells.items()))
            return
        if now >= self._named_at:
            with suppress(PointillistError):  # the recorder makes a new database, or it is of another release
                self._named = self._broken()
            # Looking must not slow down what is looked at, however many cameras there are.
            self._named_at = now + max(CAMERAS_S, _SELDOM * (time.monotonic() - now))
        with suppress(OSError):
            self._live.update(Group(figures(cells), *broken_rows(self._named)), refresh=True)

    def end(self) -> None:
        """Leave the last table on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._roles = {}

    def _cells(self, now: float) -> dict[str, str]:
        samples = Samples.scrape(role.metrics for role in self._roles.values() if role.metrics)
        recorded = samples.sum(RECORDED.name, outcome="recorded")
        rate = (recorded - self._last[1]) / (now - self._last[0]) if self._last else 0.0
        self._last = (now, recorded)
        raw = samples.sum(CAMERA_BYTES.name, kind="raw")
        sent = samples.sum(CAMERA_BYTES.name, kind="sent")
        known = samples.sum(TRUTH.name)
        attacked = samples.sum(CAMERA_TRUTH.name, picture="attacked")
        robust = samples.sum(CAMERA_TRUTH.name, picture="attacked", result="correct")
        p99 = samples.quantile(0.99, END_TO_END.name)
        return {
            "published": f"{samples.sum(CAMERA_FRAMES.name, outcome='published'):.0f}",
            "recorded": f"{recorded:.0f}",
            "frames/s": f"{rate:.1f}",
            "in spool": f"{samples.sum(SPOOL_FRAMES.name):.0f}",
            "bytes saved": f"{1 - sent / raw:.1%}" if raw else "-",
            "p99 latency": f"≤ {p99:g} s" if p99 is not None else "-",
            "accuracy": f"{samples.sum(TRUTH.name, result='correct') / known:.1%}" if known else "-",
            **({"under attack": f"{robust / attacked:.1%}"} if attacked else {}),
            "STRIP checks": f"{samples.sum(STRIP_FRAMES.name, outcome='checked'):.0f}",
            "alerts": f"{samples.sum(ALERTS.name):.0f}",
            "dead letters": f"{samples.sum(DEAD_LETTERS.name):.0f}",
        }


def figures(cells: dict[str, str]) -> Table:
    """Names and values, some pairs a row."""
    table = Table(title="Pointillist", title_justify="left", show_header=False)
    for _ in range(_PAIRS):
        table.add_column()
        table.add_column(justify="right", style="bold")
    pairs = list(cells.items())
    for start in range(0, len(pairs), _PAIRS):
        table.add_row(*(each for pair in pairs[start : start + _PAIRS] for each in pair))
    return table


def broken_rows(cameras: Sequence[CameraState]) -> list[Table | str]:
    """A row for each camera that is not well, the first of many."""
    if not cameras:
        return []
    table = Table("camera", "is", "why", title=f"not well: {len(cameras)}", title_justify="left")
    for each in cameras[:MOST_NAMED]:
        table.add_row(Text(each.name), each.state, Text(each.detail))
    more = len(cameras) - MOST_NAMED
    return [table, f"and {more} more: pointillist cameras --broken"] if more > 0 else [table]
