"""The live red team's drill: the scenario of the fleet, and the figures of the runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.models.red_team_live import CAMERAS, Plan, lens_costs, scenario
from benchmarks.pages.red_team_figures import ATTACK_S, CALM_S, CONDITIONS, judged, page
from producers.simulation.generator import Generator
from producers.simulation.scenario import parse_scenario
from tests.producers.stand_in_generator import write_generator


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    against_plain, against_hardened = (str(write_generator(tmp_path / name)) for name in ("plain", "hardened"))
    return Plan(against_plain, against_hardened, 0.03, "random", 2.0, tmp_path, tmp_path)


def test_four_of_sixteen_cameras_are_attacked_after_a_calm_and_the_bare_network_gets_every_pixel(plan: Plan) -> None:
    fleets = {name: parse_scenario(scenario(plan, each, (64, 48), 0)) for name, each in CONDITIONS.items()}
    for fleet in fleets.values():
        (fault,) = fleet.faults
        assert len(fleet.cameras()) == CAMERAS == 16
        assert len(fault.cameras) == 4
        assert (fault.at_s, fault.for_s, fault.eps) == (CALM_S, ATTACK_S, 0.03)
    dropped = {name: fleet.cameras()[0].encoding.dropped_per_block for name, fleet in fleets.items()}
    assert dropped == {"bare": 0, "plain": 16, "hardened": 16, "white-box": 16}


def test_the_white_box_attack_uses_the_generator_against_the_hardened_network(plan: Plan) -> None:
    generators = {
        name: scenario(plan, each, (64, 48), 0)["faults"][0]["generator"] for name, each in CONDITIONS.items()
    }
    assert generators.pop("white-box") == plan.against_hardened
    assert set(generators.values()) == {plan.against_plain}


def outcome(condition: str, right: int, alerts: list[float | None], seed: int = 0) -> dict[str, object]:
    return {
        "condition": condition, "size": [32, 32], "seed": seed, "attacked": [100, right], "clean": [1000, 990],
        "seconds_to_alert": {f"cam-{n}": wait for n, wait in enumerate(alerts)}, "false_alerts": [],
        "seconds_from_record_to_alert": {f"cam-{n}": wait and wait - 1 for n, wait in enumerate(alerts)},
        "records_agree": True, "audit": {"status": 0, "frames_lost": 0}, "latency_s": {"p99": 0.5}, "load_before": 9.0,
    }  # fmt: skip


def test_seeds_are_summed_and_the_page_shows_the_gain_by_hardening() -> None:
    runs = [
        outcome("bare", 1, [9.0, 11.0]), outcome("plain", 30, [12.0, None]), outcome("hardened", 90, [None, None]),
        outcome("plain", 50, [10.0, 14.5], seed=1), outcome("hardened", 94, [None, None], seed=1),
    ]  # fmt: skip
    (figures,) = judged(runs)
    assert figures["plain"]["accuracy"] == 0.4
    assert figures["plain"]["alerted"] == 3
    assert figures["plain"]["slowest_alert_s"] == 14.5
    assert figures["hardened_over_plain"] == pytest.approx(0.92 / 0.4)
    text = page({
        "runs": runs, "figures": [figures], "command": "python -m x", "machine": "m",
        "lens_ms": [{"size": [640, 480], "ms": 5.0, "ms_p95": 7.0}],
        "plan": {"cameras": 16, "fps": 2.0, "against_plain": "g", "against_hardened": "own", "eps": 0.03,
                 "target": "random", "attacked": 4, "plain": "p", "hardened": "h"},
    })  # fmt: skip
    assert "| 32×32 | 2.30 |" in text
    assert "| 640×480 | 5.00 | 7.00 |" in text
    assert "3 of 4, 14.5 s (13.5 s)" in text
    assert "0 of 4, none" in text


def test_the_cost_of_an_attacked_frame_is_measured_at_each_size(plan: Plan) -> None:
    (cost,) = lens_costs(Generator(Path(plan.against_plain)), [(32, 24)])
    assert cost["size"] == [32, 24]
    assert 0 < cost["ms"] <= cost["ms_p95"] < 1000
