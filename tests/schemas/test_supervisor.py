"""Supervision of a child process: restarts with growing delays, single runs, and an orderly end."""

from __future__ import annotations

import asyncio
import random

import pytest

from schemas.runtime.supervisor import Cause, RestartPolicy, Step, Supervisor
from tests.clocks import Clock

POLICY = RestartPolicy(first_s=1.0, longest_s=3.0, steady_s=10.0, most_failures=4, final=frozenset({7}))


class Program:
    """A process whose exit the test controls."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.starts = 0
        self.stopped_within_s: list[float] = []

    def start(self) -> int:
        self.starts += 1
        self.status = None
        return self.starts

    def poll(self) -> int | None:
        return self.status

    def stop(self, deadline_s: float) -> int | None:
        self.stopped_within_s.append(deadline_s)
        if self.status is None:
            self.status = -15
        return self.status


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)


def started(policy: RestartPolicy = POLICY) -> tuple[Supervisor, Program, Clock]:
    program, clock = Program(), Clock(100.0)
    supervisor = Supervisor(program, policy, clock)
    assert supervisor.start() == 1
    return supervisor, program, clock


def test_the_first_restart_is_immediate_and_later_ones_have_growing_delays() -> None:
    supervisor, program, clock = started()
    delays = []
    for _ in range(4):
        program.status, began_s = 1, clock.now_s
        while (step := supervisor.check()) is Step.WAITS:
            clock.now_s += 0.5
        assert step is Step.RESTARTS
        delays.append(clock.now_s - began_s)
        supervisor.start()
        assert supervisor.check() is Step.RUNS
    assert delays == [0.0, 1.0, 2.0, 3.0]
    assert supervisor.restarts == supervisor.failures == 4
    program.status = 1
    assert supervisor.check() is Step.GIVEN_UP


def test_a_steady_run_resets_the_failures() -> None:
    supervisor, program, clock = started()
    for _ in range(3):
        program.status = 1
        while supervisor.check() is not Step.RESTARTS:
            clock.now_s += 0.5
        supervisor.start()
    clock.now_s += 11.0
    program.status = 1
    assert supervisor.check() is Step.RESTARTS
    assert supervisor.failures == 0


def test_a_failed_start_of_any_duration_is_no_steady_run(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor, program, clock = started()

    def start() -> int:
        clock.now_s += 60.0
        raise RuntimeError("no answer")

    monkeypatch.setattr(program, "start", start)
    for failures in (1, 2, 3, 4, 5):
        program.status = -9
        while (step := supervisor.check()) is Step.WAITS:
            clock.now_s += 0.5
        assert supervisor.failures == failures
        if step is Step.RESTARTS:
            with pytest.raises(RuntimeError):
                supervisor.start()
    assert step is Step.GIVEN_UP


def test_an_excused_exit_is_no_failure_and_still_delays_the_restart() -> None:
    supervisor, program, clock = started()
    for _ in range(20):
        program.status = 1
        while supervisor.check(excused=True) is not Step.RESTARTS:
            clock.now_s += 0.5
        supervisor.start()
    assert supervisor.failures == 0
    assert clock.now_s > 140.0


def test_a_final_status_is_no_failure() -> None:
    supervisor, program, _ = started()
    program.status = 7
    assert supervisor.check() is Step.FINISHED
    assert supervisor.failures == 0


async def test_a_single_run_returns_its_exit_status() -> None:
    program = Program()
    polls = 0

    async def on_poll() -> None:
        nonlocal polls
        polls += 1
        if polls == 3:
            program.status = 4

    found = await Supervisor(program).run(asyncio.Event(), 1.0, poll_s=0.001, on_poll=on_poll)
    assert found == (4, Cause.ENDED)
    assert (program.starts, polls) == (1, 3)


async def test_a_stop_ends_the_run_within_its_deadline() -> None:
    program, stop = Program(), asyncio.Event()
    stop.set()
    assert await Supervisor(program).run(stop, 2.5) == (-15, Cause.STOPPED)
    assert program.stopped_within_s == [2.5]


async def test_a_run_ends_at_its_time_limit() -> None:
    program = Program()
    assert await Supervisor(program).run(asyncio.Event(), 1.0, poll_s=0.001, limit_s=0.0) == (-15, Cause.EXPIRED)


async def test_a_run_restarts_and_reports_each_exit() -> None:
    program = Program()
    ends: list[int] = []

    async def fail() -> None:
        program.status = 3 if program.starts < 3 else 7

    policy = RestartPolicy(first_s=0.0, longest_s=0.0, steady_s=10.0, final=frozenset({7}))
    found = await Supervisor(program, policy).run(
        asyncio.Event(), 1.0, poll_s=0.001, on_poll=fail, on_restart=ends.append
    )
    assert found == (7, Cause.ENDED)
    assert (program.starts, ends) == (3, [3, 3])


async def test_a_restart_that_cannot_begin_is_tried_again() -> None:
    class Scarce(Program):
        def start(self) -> int:
            if self.starts == 1:
                self.starts += 1
                raise OSError("expected memory")
            return super().start()

    program = Scarce()

    async def end() -> None:
        program.status = 3 if program.starts < 3 else 7

    policy = RestartPolicy(first_s=0.0, longest_s=0.0, steady_s=10.0, final=frozenset({7}))
    found = await Supervisor(program, policy).run(asyncio.Event(), 1.0, poll_s=0.001, on_poll=end)
    assert found == (7, Cause.ENDED)
    assert program.starts == 3
