"""The table and the last line of `up`: sums over restarts, attached cameras and recent latency."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console

from consumers.database.engine import open_engine
from consumers.database.tables import boots, ledgers, metadata
from infra.up.attached import attached_frames
from infra.up.ending import closing_line
from infra.up.processes import Role
from infra.up.scrape import Page, RunTotals
from infra.up.table import LATELY_S, LiveTable
from schemas.metrics import CAMERA_FRAMES, END_TO_END, SECONDS, SPOOL_FRAMES, STRIP_FRAMES

ROOT = Path(__file__).parents[2]
REPORT: dict[str, Any] = {
    "frames_published": 4195, "frames_recorded": 4195, "frames_dead_lettered": 0, "frames_shed": 0,
    "frames_pending": 0, "frames_lost": 0, "frames_unread": 0, "frames_foreign": 0, "restarts": {},
}  # fmt: skip


class Process:
    """The metrics page of one process of a role."""

    def __init__(self, started: float) -> None:
        self.registry = CollectorRegistry()
        self.text = ""
        self._start_time = f"# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {started}\n"

    def page(self) -> Page:
        return Page.parse(self._start_time + generate_latest(self.registry).decode())


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> dict[str, Process]:
    """Return the processes that answer, by address. The test adds and removes them."""
    found: dict[str, Process] = {}
    monkeypatch.setattr("infra.up.scrape._fetch", lambda address: found[address].page() if address in found else None)
    return found


def test_counts_continue_after_a_restart_and_stay_after_the_end_of_a_role(pages: dict[str, Process]) -> None:
    totals, name = RunTotals(), STRIP_FRAMES.name
    pages["a:1"] = Process(100.0)
    checked = STRIP_FRAMES.on(pages["a:1"].registry).labels(outcome="checked")
    spooled = SPOOL_FRAMES.on(pages["a:1"].registry)
    checked.inc(184)
    spooled.set(7)
    assert totals.scrape(["a:1"]).sum(name) == 184
    pages["a:1"] = Process(200.0)
    STRIP_FRAMES.on(pages["a:1"].registry).labels(outcome="checked").inc(75)
    assert totals.scrape(["a:1"]).sum(name) == 259
    assert totals.scrape(["a:1"]).sum(name) == 259
    del pages["a:1"]
    after_exit = totals.scrape(["a:1"])
    assert after_exit.sum(name) == 259
    assert after_exit.sum(SPOOL_FRAMES.name) == 0  # a gauge needs a process that answers


def test_a_role_that_restarts_for_ever_needs_no_more_memory(pages: dict[str, Process]) -> None:
    totals, sizes = RunTotals(), []
    for started in range(60):
        pages["a:1"] = Process(float(started))
        STRIP_FRAMES.on(pages["a:1"].registry).labels(outcome="checked").inc(2)
        assert totals.scrape(["a:1"]).sum(STRIP_FRAMES.name) == 2 * (started + 1)
        sizes.append(len(pickle.dumps(totals)))
    assert sizes[-1] < 2 * sizes[1]


def make_table(pages: dict[str, Process], attached: int = 0) -> LiveTable:
    live = LiveTable(Console(width=80, file=StringIO()))
    roles = {name: Role(name, None, metrics=name) for name in pages}  # type: ignore[arg-type]  # never started
    live.begin(roles, 1.0, attached=lambda: attached)
    return live


def test_published_includes_the_frames_of_attached_cameras(pages: dict[str, Process]) -> None:
    pages["fleet"] = Process(1.0)
    CAMERA_FRAMES.on(pages["fleet"].registry).labels(outcome="published").inc(369)
    live = make_table(pages, attached=1701)
    live.tick()
    assert "published 2070" in output_of(live)


def test_latency_covers_recently_recorded_frames_and_is_never_infinite(pages: dict[str, Process]) -> None:
    pages["recorder"] = Process(1.0)
    seconds = END_TO_END.on(pages["recorder"].registry)
    live = make_table(pages)
    begun = time.monotonic()
    assert live._cells(begun)["p99 latency"] == "-"
    seconds.observe(SECONDS[0] / 2)
    assert live._cells(begun + 1)["p99 latency"] == f"≤ {SECONDS[0]:g} s"
    assert live._cells(begun + LATELY_S / 2)["p99 latency"] == f"≤ {SECONDS[0]:g} s"
    assert live._cells(begun + 2 * LATELY_S)["p99 latency"] == "-"
    seconds.observe(10 * SECONDS[-1])
    assert live._cells(begun + 1 + 2 * LATELY_S)["p99 latency"] == f"> {SECONDS[-1]:g} s"


def output_of(live: LiveTable) -> str:
    assert isinstance(live._console.file, StringIO)
    return live._console.file.getvalue()


_IN_A_CLOSED_PIPE = """
import sys
from threading import Thread
from infra.cli.terminal import Console
from infra.up.table import LiveTable

live = LiveTable(Console(soft_wrap=True, stderr=sys.argv[1] == "stderr"))
other = sys.stdout if sys.argv[1] == "stderr" else sys.stderr

def work():
    live.print_line("a line")
    print("continued", file=other)

if sys.argv[2] == "thread":
    thread = Thread(target=work)
    thread.start()
    thread.join()
else:
    work()
"""


@pytest.mark.parametrize(("closed", "printing"), [("stdout", "run"), ("stderr", "thread")])
def test_a_run_continues_when_the_reader_of_its_lines_has_ended(closed: str, printing: str) -> None:
    command = [sys.executable, "-c", _IN_A_CLOSED_PIPE, closed, printing]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        ended, other = (run.stdout, run.stderr) if closed == "stdout" else (run.stderr, run.stdout)
        ended.close()
        assert other.read() == "continued\n"
    assert run.returncode == 0


class GoneTerminal(StringIO):
    """A terminal that has hung up."""

    def write(self, _: str) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_table_on_a_terminal_that_is_gone_begins_and_ends(pages: dict[str, Process]) -> None:
    pages["recorder"] = Process(1.0)
    live = LiveTable(Console(file=GoneTerminal(), force_terminal=True))
    live.begin({"recorder": Role("recorder", None, metrics="recorder")}, 1.0)  # type: ignore[arg-type]  # never started
    live.tick()
    live.end()
    assert live._live is None


@pytest.mark.parametrize(
    ("found", "away_s", "line"),
    [
        ({}, {}, "4,195 published = 4,195 recorded. Nothing lost. Report: run.json"),
        (
            {"restarts": {"processor-1": 1}}, {"processor-1": 6.2},
            "4,195 published = 4,195 recorded. Nothing lost. 1 restart (processor-1, 6 s). Report: run.json",
        ),
        (
            {"frames_recorded": 4100, "frames_dead_lettered": 60, "frames_shed": 30, "frames_pending": 4,
             "frames_lost": 1, "frames_foreign": 2, "restarts": {"bridge": 2, "kafka": 1}},
            {"bridge": 3.0, "kafka": 5.0},
            "4,195 published = 4,100 recorded + 60 dead-lettered + 30 shed + 4 pending + 1 lost. 2 foreign "
            "payloads rejected. 3 restarts (bridge 2 times, 3 s; kafka, 5 s). Report: run.json",
        ),
        ({"frames_published": 0, "frames_recorded": 0}, {}, "0 published = 0 recorded. Nothing lost. Report: run.json"),
    ],
)  # fmt: skip
def test_the_last_line_names_every_nonzero_term_of_the_conservation_law(
    found: dict[str, Any], away_s: dict[str, float], line: str
) -> None:
    assert closing_line(REPORT | found, away_s, Path("run.json")) == line


def test_attached_cameras_count_by_ledgers_or_by_records_if_those_are_ahead(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'records.sqlite'}"
    assert attached_frames(url, 0, ()) == 0
    engine = open_engine(url, writes=True)
    metadata.create_all(engine)

    def ledger(camera: str, boot: int, started_ms: int, published: int) -> dict[str, object]:
        values: dict[str, object] = dict.fromkeys((column.name for column in ledgers.columns), 0)
        return values | {"message": b""} | {
            "camera": camera, "boot": boot, "started_ms": started_ms, "next": published, "closed": False,
        }  # fmt: skip

    with engine.begin() as connection:
        rows = [
            ledger("local/cam-0", 1, 500, 100), ledger("local/door", 2, 500, 30), ledger("yard/gate", 3, 500, 5),
            ledger("local/door", 4, 499, 1000),
        ]  # fmt: skip
        connection.execute(ledgers.insert(), rows)
        connection.execute(
            boots.insert(), {"camera": "yard/gate", "boot": 3, "frames": 8, "duplicates": 0, "last_ms": 900}
        )
    engine.dispose()
    assert attached_frames(url, 500, {"local/cam-0"}) == 30 + 8
