"""What `pointillist up` shows while it runs: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from contextlib import suppress

from rich.console import Console
from rich.live import Live
from rich.table import Table

from infra.up.processes import Role
from infra.up.scrape import Samples
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


class LiveTable:
    """Frames a second, bytes saved, latency, accuracy, alerts, from the roles' metrics."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._roles: dict[str, Role] = {}
        self._live: Live | None = None
        self._next = 0.0
        self._startup_s = 0.0
        self._last: tuple[float, float] | None = None

    def say(self, line: str) -> None:
        """One line of progress. What shows it may lie on a full disk, or be gone: the run goes on without."""
        with suppress(OSError):
            self._console.print(line, highlight=False, markup=False)

    def begin(self, roles: dict[str, Role], startup_s: float) -> None:
        """The system is ready: show it from now on."""
        self._roles = roles
        self._startup_s = startup_s
        self.say(f"ready after {startup_s:.1f} s; cameras start")
        console = roles.get("console")
        if console is not None:
            self.say(f"console: http://{console.listen()}/")
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
        shown = Table(title="Pointillist", title_justify="left")
        for name in cells:
            shown.add_column(name, justify="right")
        shown.add_row(*cells.values())
        with suppress(OSError):
            self._live.update(shown, refresh=True)

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
