"""The table of STRIP's thresholds."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from processors.bundle import StripSettings

PLAIN: dict[str, object] = {"overlays": "overlays.npy", "threshold_bits": 0.3, "frr": 0.01}


def dropped(count: int) -> dict[str, object]:
    return {"dropped_per_block": count, "threshold_bits": 0.5, "frr": 0.02}


def test_a_minimal_table_means_the_papers_entropy_of_whole_frames_over_all_overlays() -> None:
    strip = StripSettings.model_validate(PLAIN)
    assert (strip.statistic, strip.clamped, strip.rounds, strip.dropped) == ("mean", False, (), [])
    assert strip.threshold(0) is strip
    assert strip.threshold(16) is None


def test_each_drop_ratio_has_its_own_threshold() -> None:
    strip = StripSettings.model_validate(PLAIN | {"dropped": [dropped(16), dropped(32)]})
    found = strip.threshold(32)
    assert found is not None
    assert (found.threshold_bits, found.frr) == (0.5, 0.02)
    assert strip.threshold(8) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accept_after": [2, 4], "accept_bits": [1.0]}, "expected as many accept_bits as accept_after, got 1 for 2"),
        ({"accept_after": [4, 2], "accept_bits": [1.0, 1.0]}, "accept_after: expected ascending numbers"),
        ({"accept_after": [2], "accept_bits": [0.2]}, "accept_bits: expected at least threshold_bits, got 0.2"),
        ({"statistic": "median"}, "statistic"),
        ({"statistic": "mixture", "accept_statistic": "joint"}, "accept_statistic: expected none"),
        ({"dropped": [dropped(64)]}, "dropped_per_block"),
        ({"dropped": [dropped(8), dropped(8)]}, "expected one table for each dropped_per_block"),
    ],
)
def test_an_invalid_table_is_rejected_with_the_name_of_its_key(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        StripSettings.model_validate(PLAIN | changes)
