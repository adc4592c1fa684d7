"""The documentation's figures are what the measuring commands wrote."""

from __future__ import annotations

import pytest

from benchmarks.pages import front
from benchmarks.pages.figures import FRONT, PAGES, Block
from benchmarks.pages.front import Pick, find


@pytest.mark.parametrize("block", [*PAGES, FRONT], ids=lambda block: str(block.name))
def test_pages_show_the_committed_measurements(block: Block) -> None:
    assert block.put() == block.page.read_text()


def test_a_row_is_found_by_its_beginning_and_a_missing_one_is_named() -> None:
    table = "| what | measured |\n| --- | --- |\n| speed, small | 2 |\n| speed, large | 3 |"
    assert find(table, "speed, large") == {"what": "speed, large", "measured": "3"}
    with pytest.raises(ValueError, match="begins with 'weight'"):
        find(table, "weight")


def test_each_figure_of_the_readme_is_one_number_with_the_requirement_of_its_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pages = {
        "system": "| what | asked for | measured |\n| --- | --- | --- |\n| delay | ≤ .1 s (aim .05) | 0.03 s, 0 lost |"
    }
    monkeypatch.setattr(front, "PICKS", (Pick("system", "delay", r"([\d.]+) s", "delay", "≤ .1 s", "≤ .05 s", " s"),))
    assert front.rendered(pages).splitlines()[-1] == "| delay | ≤ .1 s | ≤ .05 s | [0.03 s](docs/results/system.md) |"
    monkeypatch.setattr(front, "PICKS", (Pick("system", "delay", r"([\d.]+) s", "delay", "≤ .2 s"),))
    with pytest.raises(ValueError, match=r"expected \.2 among the requirements"):
        front.rendered(pages)
    monkeypatch.setattr(front, "PICKS", (Pick("system", "delay", r"([\d.]+) ms", "delay", "≤ .1 s"),))
    with pytest.raises(ValueError, match="expected a number like"):
        front.rendered(pages)


def test_the_readme_is_a_front_door() -> None:
    assert len(FRONT.page.read_text().splitlines()) <= 150
