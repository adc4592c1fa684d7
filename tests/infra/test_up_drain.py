"""The drain at the end of `up`: its deadline, and interrupts, which end each wait."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Timer
from types import SimpleNamespace
from typing import Any

import pytest

from infra.audit import audit as audits
from infra.process.exit_status import FLEET_PENDING
from infra.state_folder import Layout, write_report
from infra.up import run as up
from infra.up.interrupts import INTERRUPTED, Interrupts
from infra.up.settings import UpSettings
from schemas.errors import ConfigError, StateError
from schemas.identity import CameraId
from tests.waiting import PATIENCE_S

FAR_S = 240.0
"""A time longer than any wait of the tests."""


@pytest.fixture
def endless_audit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """Replace the audit by one that does not end before the test. Yield the event that ends it."""
    ended = Event()
    monkeypatch.setattr(audits, "unsettled", lambda *_: ended.wait(FAR_S) and 0)
    monkeypatch.setattr(audits, "audit", lambda *_: ended.wait(FAR_S))
    yield ended
    ended.set()


def partial_run(folder: Path, drain_s: float, interrupts: Interrupts) -> up._Run:
    """Return a run with the parts that its end needs."""
    run = up._Run.__new__(up._Run)
    run._settings, run._layout, run._asked = UpSettings(drain_s=drain_s), Layout(folder), interrupts
    run._supervisor = SimpleNamespace(watch=lambda: None)  # type: ignore[assignment]  # the part that is used
    run._live = SimpleNamespace(tick=lambda: None, print_line=lambda _: None)  # type: ignore[assignment]  # the same
    run._watching = SimpleNamespace(scrape=lambda _: None)  # type: ignore[assignment]  # the same
    run._started_ms, run._cameras, run._roles, run._scraped = 0, frozenset(), [], []
    return run


def interrupt(interrupts: Interrupts) -> None:
    interrupts(2, None)


@pytest.mark.usefixtures("endless_audit")
def test_a_second_interrupt_ends_the_drain_during_an_audit(tmp_path: Path) -> None:
    interrupts = Interrupts(1)
    Timer(0.3, interrupt, [interrupts]).start()
    begun = time.monotonic()
    partial_run(tmp_path, FAR_S, interrupts).drain()
    assert time.monotonic() - begun < FAR_S / 4


@pytest.mark.usefixtures("endless_audit")
def test_the_deadline_ends_the_drain_during_an_audit(tmp_path: Path) -> None:
    begun = time.monotonic()
    partial_run(tmp_path, 0.3, Interrupts(1)).drain()
    assert time.monotonic() - begun < FAR_S / 4


@pytest.mark.parametrize(("seconds", "is_interrupted"), [(0.3, 0), (None, 1)])
def test_a_run_without_cameras_lasts_until_its_deadline_or_an_interrupt(
    tmp_path: Path, seconds: float | None, is_interrupted: int
) -> None:
    begun = time.monotonic()
    interrupts = Interrupts()
    run = partial_run(tmp_path, FAR_S, interrupts)
    run._settings = UpSettings(cameras=0, seconds=seconds)
    run._fleets, run._begun, run._startup_s = [], begun, 0.0
    run._live.stopping = lambda: None  # type: ignore[method-assign]  # nothing to show
    if is_interrupted:
        Timer(0.3, interrupt, [interrupts]).start()
    run.watch()
    assert 0.3 <= time.monotonic() - begun < FAR_S / 4


@pytest.mark.usefixtures("endless_audit")
def test_an_interrupt_ends_the_final_audit(tmp_path: Path) -> None:
    interrupts = Interrupts(2)
    Timer(0.3, interrupt, [interrupts]).start()
    begun = time.monotonic()
    assert partial_run(tmp_path, FAR_S, interrupts).finish() == (INTERRUPTED, {})
    assert time.monotonic() - begun < FAR_S / 4


def test_the_drain_ends_when_the_frames_of_the_run_s_own_cameras_are_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def unsettled(*arguments: object) -> int:
        calls.append(arguments)
        return 3 - len(calls)

    monkeypatch.setattr(audits, "unsettled", unsettled)
    run = partial_run(tmp_path, FAR_S, Interrupts(1))
    run._cameras = frozenset({CameraId("local/cam-0")})
    run.drain()
    assert calls == [(run._layout, 0, {"local/cam-0"})] * 3


def test_a_report_that_cannot_be_written_is_one_error_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^--report: expected a writable file, got .*report\.json: .*\. Choose an"):
        write_report("--report", tmp_path / "file" / "report.json", {})
    with pytest.raises(ConfigError, match=r"^-: expected the name of a file, got the sign of standard input or output"):
        write_report("--report", Path("-"), {})
    write_report("--report", tmp_path / "new" / "report.json", {"frames_lost": 0})
    assert (tmp_path / "new" / "report.json").read_text() == '{\n  "frames_lost": 0\n}\n'


def test_an_unreachable_database_gives_no_count_of_unsettled_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> int:
        raise StateError("no database")

    monkeypatch.setattr("infra.audit.audit.unsettled", unreachable)
    assert partial_run(tmp_path, FAR_S, Interrupts(1))._count_unsettled() is None


def test_a_second_interrupt_ends_a_fleet_that_does_not_stop(tmp_path: Path) -> None:
    deadlines: list[float] = []
    released = Event()
    interrupts = Interrupts(1)

    def stop(deadline_s: float) -> None:
        deadlines.append(deadline_s)
        if deadline_s:
            interrupt(interrupts)
            released.wait(PATIENCE_S)
        released.set()

    fleet: Any = SimpleNamespace(process=SimpleNamespace(stop=stop, poll=lambda: None), final=frozenset())
    run = partial_run(tmp_path, FAR_S, interrupts)
    run._fleets = [fleet]
    run._await_stopped()
    assert deadlines == [FAR_S + up.STOP_S, 0]


@pytest.mark.parametrize(("status", "named"), [(0, False), (FLEET_PENDING, True)])
def test_an_interrupted_run_reports_frames_left_in_spools(tmp_path: Path, status: int, named: bool) -> None:
    interrupts, lines, ended = Interrupts(1), list[str](), list[float]()
    process = SimpleNamespace(poll=lambda: status if ended else None, stop=ended.append)
    run = partial_run(tmp_path, FAR_S, interrupts)
    run._fleets = [SimpleNamespace(name="fleet", process=process, final={0, FLEET_PENDING})]  # type: ignore[list-item]  # the same
    run._supervisor = SimpleNamespace(watch=lambda: None, forget=lambda _: None)  # type: ignore[assignment]  # the same
    run._live = SimpleNamespace(tick=lambda: None, stopping=lambda: None, print_line=lines.append)  # type: ignore[assignment]  # the same
    interrupt(interrupts)
    run.watch()
    assert ended
    assert any("spools still held frames" in line for line in lines) is named


@pytest.mark.parametrize("stopped", [False, True])
def test_an_ended_fleet_is_no_scrape_target_while_the_others_run(tmp_path: Path, stopped: bool) -> None:
    interrupts, targets, ended = Interrupts(int(stopped)), list[list[str]](), Event()
    first, latest_s, full = iter([None, None]), time.monotonic() + PATIENCE_S, [errno.ENOSPC]

    def scrape(roles: Any) -> None:
        if full:
            raise OSError(full.pop(), "the disk is full")
        targets.append([role.name for role in roles])
        if targets[-1] == ["bridge", "fleet-2"]:
            ended.set()

    def fleet(name: str, status: Callable[[], int | None], stop: Callable[[float], object]) -> Any:
        return SimpleNamespace(name=name, process=SimpleNamespace(poll=status, stop=stop), final={0, FLEET_PENDING})

    run: Any = partial_run(tmp_path, FAR_S, interrupts)
    run._roles = [SimpleNamespace(name="bridge")]
    run._fleets = [
        fleet("fleet-1", lambda: next(first, 0), lambda _: None),
        fleet(
            "fleet-2",
            lambda: 0 if ended.is_set() or time.monotonic() > latest_s else None,
            lambda _: ended.wait(PATIENCE_S),
        ),
    ]
    run._watching.scrape = scrape
    run._supervisor.forget = lambda _: None
    run._live.stopping = lambda: None
    run.watch()
    assert targets == [["bridge", "fleet-1", "fleet-2"], ["bridge", "fleet-2"], ["bridge"]]
