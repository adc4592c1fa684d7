"""The documentation's figures are what the measuring commands wrote."""

from __future__ import annotations

import pytest

from benchmarks.figures import FRONT, PAGES, Block
from benchmarks.front import PICKS, find


@pytest.mark.parametrize("block", [*PAGES, FRONT], ids=lambda block: str(block.name))
def test_pages_show_the_committed_measurements(block: Block) -> None:
    assert block.put() == block.page.read_text()


def test_the_front_door_shows_ten_figures_and_a_missing_one_is_named() -> None:
    assert len(PICKS) == 10
    table = "| what | measured |\n| --- | --- |\n| speed, small | 2 |\n| speed, large | 3 |"
    assert find(table, "speed, large") == {"what": "speed, large", "measured": "3"}
    with pytest.raises(ValueError, match="begins with 'weight'"):
        find(table, "weight")


def test_the_readme_is_a_front_door() -> None:
    assert len(FRONT.page.read_text().splitlines()) <= 150
