"""The summary of the benchmark of live certificates."""

from __future__ import annotations

import pytest

from benchmarks.speed.certified import Result, summary


def result(frames_per_second: float, p99_s: float, examined: int = 0, certified: int = 0) -> Result:
    return {
        "frames_per_second": frames_per_second, "p50_s": 0.01, "p99_s": p99_s,
        "recorded": 1000, "examined": examined, "certified": certified, "frames_lost": 0,
    }  # fmt: skip


def test_ratios_are_medians_over_the_rounds_and_certificates_are_summed() -> None:
    rounds = [
        {
            load: {"without": result(100, 0.1), "certified": result(100 * kept, 0.1 * slower, examined, examined // 2)}
            for load in ("full", "steady")
        }
        for kept, slower, examined in ((0.9, 1.1, 10), (0.5, 3.0, 20), (0.8, 1.2, 30))
    ]
    found = summary(rounds, share=0.05)
    assert found["frames_kept"]["ratio"] == pytest.approx(0.8)
    assert found["over_p99"]["ratio"] == pytest.approx(1.2)
    assert found["over_p99"]["without"] == pytest.approx(0.1)
    assert (found["over_p99"]["least"], found["over_p99"]["most"]) == pytest.approx((1.1, 3.0))
    assert found["full"] == {"examined": pytest.approx(60 / 150), "certified": pytest.approx(0.5)}


def test_a_run_without_an_examined_frame_has_no_certified_frame() -> None:
    sides = {"without": result(100, 0.1), "certified": result(90, 0.1)}
    assert summary([{"full": sides, "steady": sides}], share=0.05)["steady"] == {"examined": 0, "certified": 0}
