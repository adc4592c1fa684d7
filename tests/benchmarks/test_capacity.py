"""The page of capacities, which is generated from the committed measurements."""

from __future__ import annotations

from benchmarks.pages.capacity import PAGE, USE, Fleet, Kind, carried, cores, page


def test_the_page_is_generated_from_the_committed_measurements() -> None:
    assert PAGE.read_text("utf-8") == page()


def test_a_core_carries_its_share_and_a_fleet_needs_whole_cores() -> None:
    kind = Kind("small", 1_000, {"bridge": 2.0}, "measured")
    assert carried(kind, "bridge") == 1000 * USE / 2
    assert cores(Fleet(300, 1.0, "small"), kind, "bridge") == 1
    assert cores(Fleet(301, 1.0, "small"), kind, "bridge") == 2
