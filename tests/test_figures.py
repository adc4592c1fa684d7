"""The documentation's figures are the results of the measuring commands."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pages import red_team_cases
from benchmarks.pages.answers import answers
from benchmarks.pages.cases import CASES
from benchmarks.pages.figure import NONE, RESULTS, STALE, Figure, Row, Source, Template, read, sources, table
from benchmarks.pages.figures import NAMES, PAGES, README, REQUIREMENTS, Block, Pick, comparisons, front, requirements
from lab.experiments.catalogue import experiments
from lab.experiments.hardening.paired_report import summaries
from lab.experiments.hardening.rows import PairedRow
from lab.experiments.harness.plan import Workplace
from lab.experiments.harness.queue import stale_rows
from lab.experiments.harness.store import Made, Store
from lab.experiments.harness.store import Row as StoredRow

FOLDER = Path(__file__).parents[1] / "benchmarks" / "pages"
SOURCES = [source for name in NAMES for source in sources(FOLDER / f"{name}.toml", CASES)]

DOCUMENTS = [source for source in SOURCES if re.fullmatch(r"[^*]*\.json", source.file)]


@pytest.mark.parametrize("block", [*PAGES, README], ids=lambda block: str(block.name))
def test_pages_show_the_committed_measurements(block: Block) -> None:
    assert block.put() == block.page.read_text()


@pytest.mark.parametrize("block", [*PAGES, README], ids=lambda block: str(block.name))
def test_a_number_that_is_edited_by_hand_is_replaced(block: Block, tmp_path: Path) -> None:
    text = block.page.read_text()
    begin = text.index(f"<!-- {block.name}")
    number = re.compile(r"\d").search(text, text.index("| --- |", begin))
    assert number is not None
    page = tmp_path / "page.md"
    page.write_text(f"{text[: number.start()]}{(int(number[0]) + 1) % 10}{text[number.end() :]}")
    assert Block(block.name, page, block.make).put() == text


def test_the_readme_names_the_measured_memory_and_disk(tmp_path: Path) -> None:
    text = REQUIREMENTS.page.read_text()
    assert REQUIREMENTS.put() == text
    measured = read(RESULTS, "cost/footprint.json")
    (tmp_path / "cost").mkdir()
    (tmp_path / "cost" / "footprint.json").write_text(json.dumps(with_other_numbers(measured, random.Random(1))))
    numbers = [re.findall(r"[0-9.]+ GB", requirements(results)) for results in (RESULTS, tmp_path)]
    assert len(numbers[0]) == 4
    assert all(one != two for one, two in zip(*numbers, strict=True))


def with_other_numbers(value: Any, rng: random.Random) -> Any:
    """Return the document with every number changed and all other values kept."""
    if value == {}:
        return {"one": 1}
    if isinstance(value, dict):
        return {key: with_other_numbers(each, rng) for key, each in value.items()}
    if isinstance(value, list):
        return [with_other_numbers(each, rng) for each in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value * rng.randint(2, 9) + rng.randint(2, 9)
    return value


@pytest.mark.parametrize("source", DOCUMENTS, ids=lambda source: str(source.file))
def test_each_measured_figure_comes_from_its_file(source: Source, tmp_path: Path) -> None:
    changed = tmp_path / source.file
    changed.parent.mkdir(parents=True)
    changed.write_text(json.dumps(with_other_numbers(read(RESULTS, source.file), random.Random(1))))
    before, after = list(source.rows()), list(source.rows(tmp_path))
    assert len(before) == len(after)
    for row, fresh in zip(before, after, strict=True):
        numbers = [re.sub(r"`[^`]*`", "", each.measured) for each in (row, fresh)]
        assert numbers[0] != numbers[1] or not re.search(r"\d", numbers[0]), row


def test_every_source_is_committed() -> None:
    assert [each.file for each in SOURCES if not each.optional and not read(RESULTS, each.file)] == []


def test_a_source_without_its_file_is_a_row_that_was_not_measured(tmp_path: Path) -> None:
    [row] = Source("trunk/gone.json", (Figure("speed", "{speed}"),), "`measure`").rows(tmp_path)
    assert (row.what, row.measured, row.command) == ("trunk/gone.json", "not measured", "`measure`")


def test_a_case_without_the_field_of_a_figure_skips_the_figure(tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text('{"command": "m", "cases": {"a": {"speed": 2}, "b": {"speed": 3, "wait": 0}}}')
    figures = (
        Figure("{name}: speed", "{speed:.1f} m/s", "≥ {bound}"),
        Figure("{name}: wait", "{wait} s", needs="wait"),
    )
    extra = {"a": {"bound": 1}, "b": {"bound": 4}}
    rows = Source("found.json", figures, at="cases", each=True, extra=extra).rows(tmp_path)
    assert [(row.what, row.must, row.measured) for row in rows] == [
        ("a: speed", "≥ 1", "2.0 m/s"), ("b: speed", "≥ 4", "3.0 m/s"), ("b: wait", "–", "0 s"),
    ]  # fmt: skip


def test_a_declared_verdict_of_a_figure_overrides_its_bounds() -> None:
    case = {"found": "missed"}
    assert Figure("lost", "0", "0").row(case, "m").reached == "must"
    assert Figure("lost", "0", "0", reached="{found}").row(case, "m").reached == "missed"


def test_only_figures_from_rows_of_older_code_are_marked(tmp_path: Path) -> None:
    store = Store(tmp_path / "attacks")
    for name, share in (("old", 0.9), ("new", 0.5)):
        store.put(StoredRow(name, Made(), {"shares": [[name, share]]}), {"shares": ["name", "share"]}, [])
    each = Source("attacks/shares", (Figure("{name}", "{share}"), Figure("the same, twice", "{share}, {share}")), "m",
                  cases=iter)  # fmt: skip
    worst = Source("attacks", (Figure("worst of {count}", "{share}"),), "m", cases=_worst)
    needs_both = Source("attacks", (Figure("new", "{new[share]}"),), "m", cases=_by_name)
    every = (each, worst, needs_both)

    def measured() -> list[str]:
        return [row.measured for source in every for row in source.rows(tmp_path)]

    assert measured() == ["0.9", "0.9, 0.9", "0.5", "0.5, 0.5", "0.5", "0.5"]
    stale = {"attacks": {"stale": ["old"]}, "others": {"stale": ["new"]}}
    (tmp_path / "stale.json").write_text(json.dumps(stale))
    assert measured() == ["0.9 †", "0.9, 0.9 †", "0.5", "0.5, 0.5", "0.5 †", "0.5 †"]


def test_comparisons_with_rows_of_older_code_are_marked(tmp_path: Path) -> None:
    (tmp_path / "super-iot").symlink_to(RESULTS / "super-iot")
    unmarked = comparisons(tmp_path)
    assert not [line for line in unmarked if line.endswith("†")]
    for old in (["cifar10/comparisons"], list(Store(tmp_path / "super-iot").rows())):
        (tmp_path / "stale.json").write_text(json.dumps({"super-iot": {"stale": old}}))
        marked = comparisons(tmp_path)
        assert [line.removesuffix(" †") for line in marked] == unmarked
        needs = [line.endswith(" †") for line in marked]
        cells = ["cifar10: nowhere below" in line or "cifar10: at matched" in line for line in marked]
        assert needs == (cells if len(old) == 1 else [True] * len(marked))


def test_the_pages_mark_every_published_row_of_other_code() -> None:
    plans = [planned(Workplace(RESULTS)) for planned in experiments().values()]
    listed = json.loads((RESULTS / STALE).read_text())
    # Inputs are not compared: the data sets may be missing here.
    old = [each for each in stale_rows(plans) if each.why == "other code"]
    assert [each.cell.name for each in old if each.cell.name not in listed[each.plan.name]["stale"]] == []


def _worst(store: Store) -> list[dict[str, Any]]:
    rows = store.texts("shares")
    return [{**min(rows, key=lambda row: row["share"]), "count": len(rows)}]


def _by_name(store: Store) -> list[dict[str, Any]]:
    rows = {row["name"]: row for row in store.texts("shares")}
    return [{"old": rows["old"], "new": rows["new"]}]


def test_templates_convert_units_and_summarise() -> None:
    case = {"bytes": 2048, "runs": [2.0, 5.0], "roles": {"bridge": 1.5, "kafka": 4.0}, "cell": "0.25"}
    texts = {
        "{bytes:.1f÷1024} KiB": "2.0 KiB", "{bytes:.0f×2}": "4096", "{runs!n}, {runs!l} to {runs!m}": "2, 2.0 to 5.0",
        "{roles!t:.1f}, {roles!k}": "5.5, kafka", "{cell:.1f}, {cell}": "0.2, 0.25",
    }  # fmt: skip
    assert {text: Template().vformat(text, (), case) for text in texts} == texts


def test_the_table_leaves_empty_columns_and_repeated_commands_out() -> None:
    rows = [Row(what, "", "≥ 1", "–", "2", "", "`measure`") for what in ("speed", "size")]
    assert table(rows).splitlines() == [
        "| what | must | aim | measured | command |",
        "| --- | --- | --- | --- | --- |",
        "| speed | ≥ 1 | – | 2 | `measure` |",
        "| size | ≥ 1 | – | 2 |  |",
    ]


def test_each_figure_of_the_readme_is_one_number_with_the_bounds_and_the_verdict_of_its_row() -> None:
    def rows(_page: str) -> list[Row]:
        return [Row("delay: p50", "", "≤ .1 s", "≤ .05 s", "0.03 s (3 runs)", "aim", "`measure`")]

    line = front([Pick("system", "delay", "the delay")], rows).splitlines()[-1]
    assert line == "| the delay | ≤ .1 s | ≤ .05 s | [0.03 s](docs/results/system.md) | aim |"

    def differences(_page: str) -> list[Row]:
        return [
            Row("gain", "", "–", "–", "+0.010 [-0.020, +0.040] of 100", "", "`measure`"),
            Row("smallest gain", "", "–", "–", "7.8 of 100 †", "", "`measure`"),
        ]

    pick = Pick("system", "gain", "the gain, from {more[0]} points on, of {of[0]}", ("smallest",))
    line = front([pick], differences).splitlines()[2]
    assert line == (
        "| the gain, from 7.8 points on, of 100 | – | – | [+0.010 (-0.020, +0.040)](docs/results/system.md) † |  |"
    )

    def attacks(_page: str) -> list[Row]:
        return [Row("detected, worst of 2 attacks: blended", "", "≥ 50 %", "–", "83 %", "must", "`measure`")]

    line = front([Pick("backdoors", "detected", "frames of the worst attack, {end}")], attacks).splitlines()[2]
    assert line == "| frames of the worst attack, blended | ≥ 50 % | – | [83 %](docs/results/backdoors.md) | must |"
    with pytest.raises(ValueError, match="begins with 'weight', got 0"):
        front([Pick("system", "weight", "the weight")], rows)


def test_bounds_depend_on_the_kind_of_scenes_and_on_the_bound_of_the_attack() -> None:
    row = {"model": "scene@1-hardened+4de0", "scenes": "hard", "eps": 0.03, "worst": 0.5, "frames": 100, "clean": 1.0}
    found, other, clean = CASES["withstood"]([row, {**row, "eps": 0.08, "clean": 0.97}])
    assert (found["must"], found["aim"]) == ("≥ .78", "≥ .90")
    assert (other["must"], other["aim"]) == (NONE, NONE)
    assert (found["low"], found["high"]) == pytest.approx((0.404, 0.596), abs=5e-4)
    assert (clean["lowest"], clean["rows"], clean["clean_must"]) == (0.97, 2, "≥ .98")


def test_the_short_table_names_each_fleet_run_and_the_hard_scenes_and_marks_older_rows(
    tmp_path: Path,
) -> None:
    for name in ("red-team", "hardening"):
        (tmp_path / name).symlink_to(RESULTS / name)
    runs = sorted(folder.name for folder in (RESULTS / "red-team").glob("*-fleet-*"))
    lines = answers(tmp_path).splitlines()[2:]
    assert sorted(re.findall(r"red-team/(\S+)/README.md", "".join(lines))) == runs
    scenes = [line for line in lines if "hard scenes" in line]
    adapted = read(RESULTS, "hardening/adapted")
    stored = [row for row in adapted if (row["scenes"], float(row["eps"])) == ("hard", 0.03)]
    assert len(scenes) == len(lines) - len(runs) == len(stored) >= 2
    assert not [line for line in lines if "†" in line]
    (tmp_path / STALE).write_text(json.dumps({"hardening": {"stale": list(Store(tmp_path / "hardening").rows())}}))
    assert [line for line in answers(tmp_path).splitlines()[2:] if "†" in line] != []


def test_hard_scenes_are_summed_over_the_drop_ratios_and_compared_for_equal_numbers_of_frames() -> None:
    rows = [
        {"model": model, "height": height, "frames": "10", "right": right}
        for model, height, right in (
            ("scene@1-hardened+a", "32", "9"), ("scene@1-hardened+a", "32", "9"), ("scene@1+b", "32", "6"),
            ("scene@1+b", "32", "3"), ("scene@1-hardened+a", "64", "9"),
        )
    ]  # fmt: skip
    assert list(CASES["hard_scenes"](rows)) == [{"lines": 32, "ratio": 2.0, "frames": 20}]


def test_the_hardened_network_stands_first_and_the_plain_one_has_no_bound() -> None:
    rows = [
        {"model": "scene@1+b", "resubmitted": "0.5", "frames": "100", "clean": "1.0"},
        {"model": "scene@1-hardened+abcdef", "resubmitted": "0.9", "frames": "100", "clean": "1.0"},
    ]
    hardened, plain, *_ = CASES["scenes"](rows)
    assert (hardened["network"], hardened["must"]) == ("scene@1-hardened+abcd", "≥ .95")
    assert (plain["network"], plain["must"]) == ("scene@1+b", "–")


def test_the_strongest_attack_is_chosen_among_attacks_on_the_same_pictures() -> None:
    def attack(name: str, compared: int, every_time: float, *, counts: bool = True) -> dict[str, Any]:
        steps = int(name.removeprefix("steps/")) if name.startswith("steps/") else 0
        return {"name": name, "compared": compared, "every_time": every_time, "counts": counts, "steps": steps}

    rows = [
        attack("clean", 100, 0.1), attack("eot-pgd", 1000, 0.2), attack("steps/5", 100, 0.4),
        attack("steps/100", 100, 0.33), attack("fixed/all", 100, 0.1, counts=False), attack("auto-attack", 100, 0.31),
    ]  # fmt: skip
    document = {"folder": "f", "eps": 8 / 255, "settings": {"bundle": "net@1+a", "defence": "fleet"}, "attacks": rows}
    [found] = CASES["strongest_of_the_same"]([document])
    assert (found["strongest"]["name"], found["longest"]["name"], found["of"]) == ("auto-attack", "steps/100", 3)
    assert (found["reached"], found["bound"]) == ("must", "8/255")
    rows[-1]["every_time"] = 0.3
    [found] = CASES["strongest_of_the_same"]([document])
    assert found["reached"] == "missed"
    assert list(CASES["strongest_of_the_same"]([{**document, "attacks": rows[:2]}])) == []


def test_figures_on_the_whole_test_split_replace_those_on_its_first_pictures() -> None:
    def attack(key: str, n: int) -> dict[str, str]:
        return {"subject": "mnist-cq2", "attack": key, "eps": "0.3", "n": str(n)}

    rows = [attack("fgsm-whole", 10000), attack("fgsm", 1000), attack("box", 200), attack("square", 50)]
    found = [(case["attack"].partition(" ")[0], case["n"]) for case in CASES["qusecnets"](rows)]
    assert found == [("FGSM", "10000"), ("worst", "200")]


def test_cameras_without_an_alert_are_counted_next_to_the_slowest_alert() -> None:
    (source,) = [each for each in SOURCES if each.file == "red-team/live.json"]
    document = json.loads((RESULTS / source.file).read_text())
    document["figures"][0]["plain"] |= {"alerted": 3, "slowest_alert_s": 12.0}
    assert source.cases is not None
    (case,) = source.cases(document)
    (slowest,) = [figure.row(case, "") for figure in source.figures if "slowest" in figure.what]
    assert slowest.measured == "13.6 s; 7 of 8 cameras alerted"


def test_the_paired_figures_are_the_differences_on_the_same_pictures() -> None:
    def attack(name: str, side: str, bare: int, behind: int) -> dict[str, str]:
        numbers = {"pictures": "8", "submissions": "10", "eps": "0.03137", "seconds": "1"}
        answers = {"bare": f"{bare:02x}", "once": "ff", "always": f"{behind:02x}"}
        return {"network": "net@1+a", "made_on": side, "attack": name, **numbers, **answers}

    rows = [
        attack("clean", "bare", 0b11111110, 0b11111100), attack("eot-pgd", "bare", 0b11110000, 0b11111100),
        attack("square", "fleet", 0b11111110, 0b11000011),
    ]  # fmt: skip
    clean, worst = CASES["paired"](rows)
    assert [case["gain"]["value"] for case in (clean, worst)] == [-1 / 8, -2 / 8]
    assert [case["bare"]["value"] for case in (clean, worst)] == [7 / 8, 4 / 8]
    assert (clean["primary"], clean["smallest_gain"]) == (None, None)
    # Shown once, all are right behind the drop: the page and this table name the gain of one comparison.
    assert worst["primary"]["value"] == 4 / 8
    answers = ("network", "made_on", "attack", "bare", "once", "always")
    numbers = {"pictures": 8, "submissions": 10, "eps": 0.03137, "seconds": 1.0}
    typed: list[dict[str, Any]] = [{**{name: row[name] for name in answers}, **numbers} for row in rows]
    [summary] = summaries([PairedRow(**row) for row in typed])
    assert worst["smallest_gain"] == 100 * summary.worst.detectable("once") != 100 * summary.worst.detectable("always")
    assert (worst["attacks"], worst["bound"]) == ("worst case of all attacks (2)", "8/255")


def test_an_attack_on_the_bare_network_is_added_to_the_run_on_the_same_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = {
        "network": "net@1+a", "eps": "0.03137", "made_on": "bare", "attack": "auto-attack", "pictures": "8",
        "submissions": "10", "bare": "00", "once": "ff", "always": "f0", "seconds": "1.0",
    }  # fmt: skip
    run = {"network": "net@1+a", "eps": "0.03137", "images": "8", "standing": "3c"}
    for runs, expected in (([run], 2 / 8), ([run | {"images": "300"}], None), ([], None)):
        monkeypatch.setattr(red_team_cases, "read", lambda *_, found=runs: found)
        [case] = CASES["transferred"]([row])
        assert case["attack"] == "auto-attack (standard), made on the bare network"
        assert (case["alone"]["value"], case["n"], case["times"]) == (4 / 8, 8, 10)
        assert case.get("together", {}).get("value") == expected
        assert case.get("must") == (None if expected is None else "≥ .33")


def test_the_readme_has_at_most_150_lines() -> None:
    assert len(README.page.read_text().splitlines()) <= 150


def test_each_memory_in_the_readme_belongs_to_the_named_system(tmp_path: Path) -> None:
    measured = read(RESULTS, "cost/footprint.json")
    for name, gigabytes in (("scene", 7), ("general", 3)):
        measured["systems"][name]["memory_bytes_in_all"] = gigabytes * 10**9
    (tmp_path / "cost").mkdir()
    (tmp_path / "cost" / "footprint.json").write_text(json.dumps(measured))
    assert "took 7.0 GB of memory with 8 simulated cameras and the small network" in requirements(tmp_path)
    assert " and 3.0 GB with the general network and one attached camera;" in requirements(tmp_path)
