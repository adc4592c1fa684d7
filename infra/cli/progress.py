"""Progress of commands: a bar on stderr for people, JSON lines on stdout for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infra.cli.terminal import Console
from schemas.runtime.throttle import Throttle


def _bars(console: Console, *, transient: bool, quiet: bool = False) -> Progress:
    """Return bars with the remaining time; nothing is shown unless the console is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=transient, disable=quiet or not console.is_terminal)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[float], None]]:
    """Provide a bar on stderr if that is a terminal; its function takes the progress since the last call."""
    with _bars(Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


class PhaseBars:
    """The phases of a command: a bar on stderr if that is a terminal, and with `lines` a line for each phase."""

    def __init__(self, what: str, *, lines: bool = True, quiet: bool = False) -> None:
        self._lines, self._quiet = lines, quiet
        self._console = Console(stderr=True, soft_wrap=True)
        self.bars = _bars(self._console, transient=not lines, quiet=quiet)
        self._task = self.bars.add_task(what, total=None)

    def phase(self, name: str, steps: int) -> None:
        """Begin a phase of this many steps."""
        if self._lines:
            self.print_line(f"{name}: {steps} steps")
        self.bars.reset(self._task, description=name, total=steps)

    def advance(self, steps: int) -> None:
        """Count this many steps as done."""
        self.bars.advance(self._task, steps)

    def print_line(self, line: str) -> None:
        """Print a line for the user."""
        if not self._quiet:
            self._console.print_line(line)


class PhaseLines:
    """The same for a program: lines `{"phase": …, "step": …, "steps": …}` on stdout, at most one in `apart_s`."""

    def __init__(self, apart_s: float = 0.5) -> None:
        self.bars: AbstractContextManager[Any] = nullcontext()
        self._throttle: Throttle[str] = Throttle(apart_s)
        self._name, self._step, self._steps = "", 0, 0

    def phase(self, name: str, steps: int) -> None:
        """Begin a phase of this many steps."""
        self._name, self._step, self._steps = name, 0, steps
        self._show()

    def advance(self, steps: int) -> None:
        """Count this many steps as done."""
        self._step += steps
        if self._throttle.try_acquire(self._name, time.monotonic()) or self._step == self._steps:
            self._show()

    def _show(self) -> None:
        print(json.dumps({"phase": self._name, "step": self._step, "steps": self._steps}), flush=True)
