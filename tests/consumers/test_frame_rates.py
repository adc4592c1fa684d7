"""The frames per second at each part of the processing chain."""

from __future__ import annotations

from consumers.console.data.frame_rates import WINDOW_S, FrameRates
from consumers.console.data.roles import RoleState, chain, with_kafka


def role(name: str, frames: float | None) -> RoleState:
    return RoleState(name, "up", None, 1, frames=frames)


def test_a_rate_is_the_growth_of_the_counter_over_the_window() -> None:
    rates = FrameRates()
    for second in range(31):
        # 100 frames per second at first, and 5 at the end.
        frames = 100 * second if second < 15 else 1400 + 5 * (second - 14)
        rates.add([role("bridge", frames), role("console", None)], float(second))
    assert rates.rates() == {"bridge": 5.0}


def test_one_reading_gives_no_rate_and_a_restart_resets_it() -> None:
    rates = FrameRates()
    rates.add([role("bridge", 1000)], 0.0)
    assert rates.rates() == {}
    rates.add([role("bridge", 3)], 1.0)
    assert rates.rates() == {}
    rates.add([role("bridge", 7)], 2.0)
    assert rates.rates() == {"bridge": 4.0}
    rates.add([], 3.0)
    assert rates.rates() == {}


def test_a_counter_that_is_read_seldom_keeps_its_rate() -> None:
    rates = FrameRates()
    rates.add([role("bridge", 0)], 0.0)
    rates.add([role("bridge", 40)], 2 * WINDOW_S)
    assert rates.rates() == {"bridge": 2.0}


def test_the_counter_of_the_monitor_is_shown_for_kafka() -> None:
    found = {each.name: each.frames for each in with_kafka([role("kafka-1", None), role("monitor", 90.0)])}
    assert found == {"kafka-1": 90.0, "monitor": None}
    assert with_kafka([role("bridge", 1.0)])[0].frames == 1.0


def test_each_part_of_the_chain_shows_the_rate_of_its_roles() -> None:
    roles = [role(name, None) for name in ("mosquitto", "bridge", "kafka", "processor-1", "processor-2", "recorder")]
    rates = {"bridge": 4.0, "kafka": 4.0, "processor-1": 1.5, "processor-2": 2.0}
    nodes = {node.title: (node.value, *node.details) for node in chain(roles, ["good"], 4.2, rates)}
    assert nodes["Cameras"] == ("1", "4.2 frames/s")
    assert nodes["MQTT"] == nodes["Recorder"] == ("up",)
    assert nodes["Bridge"] == nodes["Kafka"] == ("4/s",)
    assert nodes["Processors"] == ("3.5/s", "2 of 2 up")
