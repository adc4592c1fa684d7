"""The harness of experiments: rows and their provenance, staleness, and a queue that resumes after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lab.experiments.harness.cell import Cell, Tables, file_state
from lab.experiments.harness.page import Column, table
from lab.experiments.harness.plan import Plan, Workplace, staleness
from lab.experiments.harness.queue import Stale, affordable, measure, only_queue, stale_rows
from lab.experiments.harness.stale_file import write_stale_file
from lab.experiments.harness.store import Made, Row, Store, columns_of, values_of
from schemas.errors import ConfigError
from tests.lab.conftest import Command

ROOT = Path(__file__).parents[2]
CODE = ("lab.chance:seeded",)


@dataclass(frozen=True)
class Figure:
    """A record."""

    name: str
    count: int
    share: float | None
    sizes: list[int]


TABLES = {"figures": Figure}
COLUMNS = columns_of(TABLES)


def stored(name: str, share: float | None = 0.5, made: Made | None = None) -> Row:
    return Row(name, made or Made("command"), {"figures": [values_of(Figure(name, 3, share, [1, 2]))]})


def cell(name: str, calls: list[str] | None = None, seconds: float = 60.0, settings: object = ()) -> Cell:
    def run() -> Tables:
        if calls is not None:
            calls.append(name)
        return {"figures": [Figure(name, 1, None, [])]}

    return Cell(name, CODE, run, settings, seconds=seconds)


def planned(store: Store, *cells: Cell, name: str = "small") -> Plan:
    return Plan(name, TABLES, cells, store, list)


def test_records_are_read_as_written_and_rounded_to_five_places(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(stored("b", 1 / 3), COLUMNS, ["a", "b"])
    store.put(stored("a", None), COLUMNS, ["a", "b"])
    assert store.records("figures", Figure) == [Figure("a", 3, None, [1, 2]), Figure("b", 3, 0.33333, [1, 2])]
    assert store.texts("figures")[1] == {"name": "b", "count": "3", "share": "0.33333", "sizes": "[1, 2]"}
    assert store.records("others", Figure) == []
    assert Store(tmp_path / "absent").rows() == {}


def test_a_row_replaces_its_earlier_version_and_keeps_the_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, share in (("a", 0.1), ("b", 0.2), ("a", 0.3), ("no cell any more", 0.4)):
        store.put(stored(name, share), COLUMNS, ["a", "b"])
    assert [(each.name, each.share) for each in store.records("figures", Figure)] == [
        ("a", 0.3), ("b", 0.2), ("no cell any more", 0.4),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "{", '{"rows": {"a": {}}}', '{"columns": {}, "rows": {"a": 3}}', "[]"])
def test_a_file_of_another_form_is_rejected(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    store.file.write_text(text)
    for read in (store.rows, lambda: store.records("figures", Figure), lambda: store.texts("figures")):
        with pytest.raises(ConfigError, match=r"expected rows of an experiment, got .*\. Restore the file\."):
            read()


def test_a_table_with_other_columns_is_rejected(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(stored("a"), {"figures": ["name"]}, [])
    with pytest.raises(ConfigError, match="expected the columns name, count, share, sizes"):
        store.records("figures", Figure)


def test_a_row_with_other_columns_is_deleted_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    store.put(stored("a"), {"figures": ["name", "count", "sizes", "share"]}, [])
    store.put(Row("without records", Made("command"), {"figures": []}), {"figures": ["name"]}, [])
    store.put(stored("b"), COLUMNS, [])
    store.put(stored("c"), COLUMNS, [])
    assert list(store.rows()) == ["without records", "b", "c"]
    assert [each.name for each in store.records("figures", Figure)] == ["b", "c"]
    assert capsys.readouterr().err == f"{store.file}: a is deleted, its columns have changed\n"


def test_a_removed_table_is_dropped_and_the_rows_of_others_stay(tmp_path: Path) -> None:
    store = Store(tmp_path)
    row = stored("a")
    store.put(replace(row, tables={**row.tables, "earlier": [[1]]}), {**COLUMNS, "earlier": ["n"]}, [])
    store.put(stored("b"), COLUMNS, [])
    assert [each.name for each in store.records("figures", Figure)] == ["a", "b"]
    assert "earlier" not in store.rows()["a"].tables


def test_a_measured_row_is_current_until_its_code_or_inputs_change(tmp_path: Path) -> None:
    one, store = cell("a"), Store(tmp_path)
    assert staleness(one, store.rows()) == "missing"
    row = planned(store, one).measure(one, "pointillist lab stale --run")
    assert (row.made.command, row.made.seed) == ("pointillist lab stale --run", 0)
    assert staleness(one, store.rows()) == ""
    assert staleness(cell("a", settings="other"), store.rows()) == "other inputs"
    assert staleness(replace(one, code=("lab.statistics:wilson",)), store.rows()) == "other code"
    assert staleness(one, {"a": stored("a")}) == "code not recorded"


def test_a_row_has_the_state_of_the_inputs_at_the_beginning_of_its_measurement(tmp_path: Path) -> None:
    store, weights = Store(tmp_path / "results"), tmp_path / "weights"
    weights.write_text("measured")

    def run() -> Tables:
        weights.write_text("changed meanwhile")
        return {"figures": [Figure("a", 1, None, [])]}

    def planned_cell() -> Cell:
        return Cell("a", CODE, run, files=(weights,))

    planned(store, planned_cell()).measure(planned_cell(), "")
    assert staleness(planned_cell(), store.rows()) == "other inputs"


def test_the_state_of_a_folder_follows_from_its_content_without_prose(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "weights").write_bytes(b"1")
    (folder / "training.md").write_text("one")
    before = file_state(folder)
    (folder / "training.md").write_text("two")
    assert file_state(folder) == before
    (folder / "weights").write_bytes(b"12")
    assert file_state(folder) != before
    assert file_state(tmp_path / "absent") == "missing"


def test_stale_rows_are_in_the_order_of_plans_with_the_cost_of_the_earlier_measurement(tmp_path: Path) -> None:
    first = planned(Store(tmp_path / "1"), cell("a"), cell("b"), name="first")
    second = planned(Store(tmp_path / "2"), cell("c"), cell("d"), name="second")
    first.store.put(stored("b", made=Made("command", seconds=7.0)), COLUMNS, [])
    second.measure(second.cells[0], "")
    found = stale_rows([first, second])
    assert [(each.cell.name, each.why, each.seconds) for each in found] == [
        ("a", "missing", 60.0), ("b", "code not recorded", 7.0), ("d", "missing", 60.0),
    ]  # fmt: skip


def test_the_file_of_stale_rows_names_the_published_ones(tmp_path: Path) -> None:
    plan = planned(Store(tmp_path), cell("a"), cell("b"), cell("c"), name="first")
    for name in ("b", "no cell any more"):
        plan.store.put(stored(name), COLUMNS, [])
    plan.measure(plan.cells[2], "")
    write_stale_file(tmp_path / "stale.json", [plan], stale_rows([plan]))
    found = json.loads((tmp_path / "stale.json").read_text())
    assert found == {"first": {"published": 3, "not_planned": 1, "stale": ["b"]}}


def test_a_limit_of_hours_selects_the_rows_that_fit(tmp_path: Path) -> None:
    plan = planned(Store(tmp_path))
    rows = [Stale(plan, cell(str(hours)), "missing", 3600 * hours) for hours in (1, 3, 0.5)]
    assert [each.cell.name for each in affordable(rows, 2)] == ["1", "0.5"]
    assert affordable(rows, None) == rows


def test_a_row_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    def fail() -> Tables:
        raise ValueError("no picture")

    lines, calls = list[str](), list[str]()
    plan = planned(Store(tmp_path), Cell("bad", CODE, fail), cell("good", calls))
    assert measure(stale_rows([plan]), "", lines.append) == 1
    assert calls == list(plan.store.rows()) == ["good"]
    assert any("bad: failed: ValueError('no picture')" in line for line in lines)


def test_only_one_queue_runs(tmp_path: Path) -> None:
    with only_queue(tmp_path), pytest.raises(ConfigError, match="expected no other queue"), only_queue(tmp_path):
        pass
    with only_queue(tmp_path):
        pass


def test_a_table_has_a_column_for_each_figure() -> None:
    columns = (Column[int]("n", str), Column[int]("twice", lambda each: str(2 * each)))
    assert table(columns, [1, 2]).splitlines()[2:] == ["| 1 | 2 |", "| 2 | 4 |"]
    assert table(columns, []) == ""


@dataclass(frozen=True)
class Sum:
    """A record of a row's total."""

    total: int


def tiny(folder: Path) -> Callable[[Workplace], Plan]:
    """Return an experiment of three rows that write into `folder / "log"`.

    The second row takes three steps. In the first run, it kills its process after two of them.
    """

    def log(line: str) -> None:
        with (folder / "log").open("a") as stream:
            stream.write(f"{line}\n")

    def plan(place: Workplace) -> Plan:
        cache, store = place.cache("tiny"), place.store("tiny")

        def quick(name: str) -> Tables:
            log(name)
            return {"sums": [Sum(1)]}

        def step(number: int) -> dict[str, np.ndarray]:
            log(f"step {number}")
            return {"value": np.array(number)}

        def long() -> Tables:
            total = 0
            for number in range(3):
                total += int(cache.get(f"step-{number}", "same", partial(step, number))["value"])
                if number == 1 and not (folder / "died").exists():
                    (folder / "died").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            return {"sums": [Sum(total)]}

        runs: dict[str, Callable[[], Tables]] = {
            "first": partial(quick, "first"),
            "long": long,
            "last": partial(quick, "last"),
        }
        return Plan("tiny", {"sums": Sum}, tuple(Cell(name, CODE, run) for name, run in runs.items()), store, list)

    return plan


def options_of(folder: Path, *options: object) -> list[str]:
    return ["stale", *map(str, options), "--results", str(folder / "results"), "--runs", str(folder)]


@pytest.fixture
def queue(tmp_path: Path, lab: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return a function that runs `pointillist lab stale` on the experiment of three rows."""
    monkeypatch.setattr("lab.experiments.catalogue.experiments", lambda: {"tiny": tiny(tmp_path)})
    # A lower priority would remain for the later tests of this process.
    monkeypatch.setattr("lab.experiments.harness.queue.lower_priority", lambda: None)
    return lambda *options: lab(*options_of(tmp_path, *options))


KILLED = """
import sys
from pathlib import Path
from infra.cli import main
from lab.experiments import catalogue
from lab.experiments.harness import queue
from tests.lab.test_harness import tiny
queue.lower_priority = lambda: None  # among other tests the least priority makes it wait for a minute
folder = Path(sys.argv.pop(1))
catalogue.experiments = lambda: {"tiny": tiny(folder)}
main()
"""
"""A program that runs the command in a process of its own, which its second row kills."""


def test_a_killed_queue_resumes_from_the_checkpoint_of_its_row(tmp_path: Path, queue: Command) -> None:
    program = [sys.executable, "-c", KILLED, str(tmp_path), "lab", *options_of(tmp_path, "--run")]
    killed = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finished = queue("--run").success()
    assert "1 of 2: tiny, long: missing" in finished.out
    assert (tmp_path / "log").read_text().split("\n")[:-1] == ["first", "step 0", "step 1", "step 2", "last"]
    rows = json.loads((tmp_path / "results" / "tiny" / "rows.json").read_text())["rows"]
    assert {name: row["tables"]["sums"] for name, row in rows.items()} == {"first": [[1]], "long": [[3]], "last": [[1]]}
    commands = {row["made"]["command"] for row in rows.values()}
    assert commands == {"pointillist lab stale --run"}, "a stored command must not contain folders of this machine"


def test_an_unknown_experiment_is_rejected_in_one_line(lab: Command) -> None:
    error = lab("stale", "--only", "nothing").refusal()
    assert error.startswith("error: --only: expected video or hardening or")


@pytest.mark.parametrize("options", [(), ("--run",)])
def test_a_row_that_no_experiment_has_is_rejected_before_the_others_are_measured(
    tmp_path: Path, queue: Command, options: tuple[str, ...]
) -> None:
    error = queue("--row", "first", "--row", "lnog", *options).refusal()
    assert "error: --row: expected a part of a row's name in tiny, got 'lnog'. Correct it." in error
    assert not (tmp_path / "log").exists()


def test_the_file_of_stale_rows_is_not_written_without_the_data_sets(
    tmp_path: Path, queue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTILLIST_DATA", str(tmp_path / "absent"))
    assert "every row that reads them is listed as stale" in queue().success().err
    error = queue("--json", tmp_path / "stale.json").refusal()
    assert f"error: POINTILLIST_DATA: expected the folder of the data sets, got {tmp_path / 'absent'}" in error
    assert not (tmp_path / "stale.json").exists()


def test_the_error_for_missing_data_sets_names_the_variable() -> None:
    with pytest.raises(ConfigError, match="POINTILLIST_DATA is missing"):
        Workplace().needed_data()
