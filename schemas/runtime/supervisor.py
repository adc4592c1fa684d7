"""Supervision of one child process by a policy: run once, or restart with growing delays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from math import inf
from typing import Any, Final, Protocol

from schemas.transport.backoff import Backoff
from schemas.waiting import wait_at_most

POLL_S: Final = 0.2


class Process(Protocol):
    """A child process, which may be started again after its end."""

    def start(self) -> Any:
        """Start the process."""

    def poll(self) -> int | None:
        """Return its exit status, None while it runs."""

    def stop(self, deadline_s: float) -> int | None:
        """Stop the process, by force after the deadline. Return its exit status."""


@dataclass(frozen=True)
class RestartPolicy:
    """Restarts after an end: at once the first time, then after delays that double."""

    first_s: float
    longest_s: float
    steady_s: float
    """A process that ran longer is restarted at once, and its earlier failures are forgotten."""
    most_failures: float = inf
    """A process with more ends in a row without a steady run is given up; 0 runs it once."""
    final: frozenset[int] = frozenset()
    """Exit statuses that mean that the work is done."""


ONCE: Final = RestartPolicy(0.0, 0.0, inf, most_failures=0)
"""No restart."""


class Step(Enum):
    """The state of a supervised process at one check."""

    RUNS = auto()
    WAITS = auto()
    """It has ended, and its delay is not over."""
    RESTARTS = auto()
    """It has ended and must be started now."""
    FINISHED = auto()
    """It ended with a final status."""
    GIVEN_UP = auto()
    """It ended too often."""


class Cause(Enum):
    """The cause of the end of `Supervisor.run`."""

    ENDED = auto()
    STOPPED = auto()
    EXPIRED = auto()


class Supervisor:
    """Starts one process and decides after each end. An owner calls `check` regularly, or awaits `run`."""

    def __init__(
        self, process: Process, policy: RestartPolicy = ONCE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` returns monotonic seconds."""
        self.process = process
        self.restarts = 0
        """Ends that were answered by a restart."""
        self.failures = 0
        """Ends in a row without a steady run."""
        self.most_failures = policy.most_failures
        """The number of the policy. The owner may change it."""
        self._policy = policy
        self._clock = clock
        self._backoff = Backoff(policy.first_s, policy.longest_s)
        self._delay_s = 0.0
        self._started = clock()
        self._due: float | None = None

    @property
    def is_steady(self) -> bool:
        """Whether the last start was more than `steady_s` ago. If the process still runs, its run is a steady one."""
        return self._clock() - self._started > self._policy.steady_s

    def start(self) -> Any:
        """Start the process and return the result of its `start`. A start that fails is no steady run."""
        begun = self._clock()
        self._started, self._due = inf, None
        result = self.process.start()
        self._started = begun
        return result

    def check(self, *, excused: bool = False) -> Step:
        """Return the step that is due. `excused` ends, such as those by a full disk, are no failures.

        `RESTARTS` is for the caller, who calls `start`.
        """
        status = self.process.poll()
        if status is None:
            return Step.RUNS
        if status in self._policy.final:
            return Step.FINISHED
        if self._due is None:
            self._note_end(excused)
        if self.failures > self.most_failures:
            return Step.GIVEN_UP
        if self._due is not None and self._clock() < self._due:
            return Step.WAITS
        self.restarts += 1
        return Step.RESTARTS

    async def run(
        self,
        stop: asyncio.Event,
        stop_s: float,
        *,
        poll_s: float = POLL_S,
        limit_s: float = inf,
        on_poll: Callable[[], Awaitable[None]] | None = None,
        on_restart: Callable[[int], None] | None = None,
    ) -> tuple[int | None, Cause]:
        """Run until the last end, until `stop` is set, or for `limit_s` seconds; return the exit status and the cause.

        A process that still runs then has `stop_s` seconds for an orderly end. `on_poll` is awaited at each check.
        `on_restart` receives the exit status before each restart. Raises OSError if the program cannot be started the
        first time; a restart that fails is tried again.
        """
        await asyncio.to_thread(self.start)
        expires = self._clock() + limit_s
        while (step := await asyncio.to_thread(self.check)) not in (Step.FINISHED, Step.GIVEN_UP):
            if on_poll is not None:
                await on_poll()
            if stop.is_set() or self._clock() > expires:
                cause = Cause.STOPPED if stop.is_set() else Cause.EXPIRED
                return await asyncio.to_thread(self.process.stop, stop_s), cause
            if step is Step.RESTARTS:
                status = self.process.poll()
                if on_restart is not None and status is not None:
                    on_restart(status)
                with suppress(OSError):  # for example, memory is short
                    await asyncio.to_thread(self.start)
            await wait_at_most(stop, poll_s)
        return self.process.poll(), Cause.ENDED

    def _note_end(self, excused: bool) -> None:
        """Count one end and set the time of the restart."""
        ended, steady = self._clock(), self.is_steady
        if steady:
            self._backoff.reset()
        self.failures = 0 if steady or excused else self.failures + 1
        self._due = ended + (0.0 if steady else self._delay_s)
        self._delay_s = self._backoff.next_s()
