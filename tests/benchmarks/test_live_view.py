"""The quantile of the delay that a live view causes for other cameras."""

from __future__ import annotations

import pytest

from benchmarks.scale.live_view import p90


def test_the_p90_covers_all_turns_together_and_needs_enough_frames() -> None:
    turns = [[float(number) for number in range(begin, 100, 2)] for begin in (0, 1)]
    assert p90(turns) == 89.0
    with pytest.raises(ValueError, match="at least 50"):
        p90([turns[0][:36]])
