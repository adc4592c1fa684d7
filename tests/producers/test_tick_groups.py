"""The groups of cameras that a fleet's ticker visits in each round."""

from __future__ import annotations

from collections import Counter

import pytest

from producers.fleet.tick_groups import TickGroups


@pytest.mark.parametrize("cameras", [1, 8, 255, 511])
def test_every_camera_of_a_small_fleet_is_visited_in_every_round(cameras: int) -> None:
    groups = TickGroups(cameras)
    for _ in range(3):
        due = [each for part in groups.next_round() for each in part]
        assert sorted(due) == [(number, True) for number in range(cameras)]


@pytest.mark.parametrize("cameras", [512, 3_001, 10_000])
def test_a_calm_camera_of_a_large_fleet_is_visited_at_least_every_tenth_round(cameras: int) -> None:
    groups = TickGroups(cameras)
    turns: Counter[int] = Counter()
    for _ in range(10):
        parts = [list(part) for part in groups.next_round()]
        assert max(map(len, parts)) <= max(256, -(-cameras // 10))
        assert sorted(number for part in parts for number, _ in part) == list(range(cameras))
        turns.update(number for part in parts for number, always in part if always)
    assert len(turns) == cameras
    assert sum(turns.values()) <= 10 * cameras / min(10, 1 + cameras // 512) + cameras
