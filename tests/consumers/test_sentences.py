"""The first sentence of a page: the state of the fleet or of the system."""

from __future__ import annotations

import pytest

from consumers.cameras.episodes import sentence
from consumers.cameras.state import State
from consumers.console.data.rate_text import frame_rate
from consumers.console.data.roles import RoleState, chain
from consumers.console.data.sentences import Traffic, fleet_sentence, system_sentence, unusual
from consumers.records.rows import statistic_name
from schemas.evidence.alarms import COMBINED
from schemas.pointillist_pb2 import Statistic

BUSY = Traffic(78.4, 0.0404, 0)
ONLINE, OFFLINE, ALERT, BLACK, PAUSED = State.ONLINE, State.OFFLINE, State.ALERT, State.BLACK, State.PAUSED


@pytest.mark.parametrize(
    ("counts", "traffic", "sentence"),
    [
        ({}, BUSY, ""),
        ({ONLINE: 12}, BUSY, "All fine. 78 frames/s, 40 ms from camera to verdict, nothing lost."),
        (
            {ONLINE: 11, ALERT: 1},
            BUSY,
            "11 fine, 1 needs a look. 78 frames/s, 40 ms from camera to verdict, nothing lost.",
        ),
        (
            {ONLINE: 1_200, ALERT: 1, BLACK: 2, OFFLINE: 1, PAUSED: 3},
            Traffic(5.04, 1.26, 1),
            "1,200 fine, 3 need a look, 1 offline, 3 paused or ended. "
            "5 frames/s, 1.3 s from camera to verdict, 1 frame lost.",
        ),
        ({OFFLINE: 1}, Traffic(0.0, None, None), "1 offline. No frames now."),
        (
            {ONLINE: 1},
            Traffic(0.2, 0.153, 1_000),
            "All fine. 0.2 frames/s, 150 ms from camera to verdict, 1,000 frames lost.",
        ),
    ],
)
def test_the_fleet_is_described_in_one_sentence(counts: dict[State, int], traffic: Traffic, sentence: str) -> None:
    assert fleet_sentence(counts, traffic) == sentence


@pytest.mark.parametrize(
    ("per_second", "words"),
    [
        (0.0, "0/s"), (1 / 3600, "1/h"), (1 / 60, "1/min"), (0.06, "3.6/min"), (0.1, "0.1/s"), (2.53, "2.5/s"),
        (78.4, "78/s"), (99.7, "100/s"), (1_234.5, "1,234/s"),
    ],
)  # fmt: skip
def test_a_rate_is_formatted_in_a_readable_unit(per_second: float, words: str) -> None:
    assert frame_rate(per_second) == words


def test_the_system_is_described_in_one_sentence() -> None:
    well = RoleState("bridge", "up", None, 1)
    hangs = RoleState("processor-1", "not answering", None, 2)
    assert system_sentence([well], BUSY).startswith("The only role is up. 78 frames/s")
    assert system_sentence([well, well], BUSY).startswith("All 2 roles are up. ")
    assert system_sentence([well, hangs], BUSY).startswith("Processor-1 does not answer. 78 frames/s")
    assert system_sentence([], Traffic(0.0, None, None)) == "No frames now."


@pytest.mark.parametrize(
    ("p_value", "words"),
    [
        (1.0, "100 in 100"), (0.25, "25 in 100"), (0.0999, "1 in 10"), (0.00033, "1 in 3,000"),
        (0.0, "1 in 1,000,000,000"),
    ],
)  # fmt: skip
def test_a_p_value_is_described_as_a_share_of_clean_frames(p_value: float, words: str) -> None:
    assert unusual(p_value, 0.0091, "") == f"as unusual as {words} clean frames (flagged below 1 in 110)"


def test_each_statistic_has_its_own_description() -> None:
    names = [statistic_name(each) for each in Statistic.values() if each]
    assert len({unusual(0.5, 0.01, name) for name in names} | {unusual(0.5, 0.01, "")}) == 6
    assert len({sentence("stop", 1, COMBINED, name) for name in ("", *names)}) == 6


def test_the_chain_shows_the_broken_part_and_the_sum_of_the_backlog() -> None:
    roles = [
        RoleState("mosquitto", "up", None, 1),
        RoleState("processor-1", "up", None, 2, backlog=1_200),
        RoleState("processor-2", "not answering", None, 3, "no answer for 3 s", 34, 2),
        RoleState("recorder", "gone", None, None),
        RoleState("prometheus", "up", None, 4),
    ]
    nodes = {node.title: node for node in chain(roles, 11 * ["good"] + ["bad"], 60.0)}
    assert [node.level for node in nodes.values()] == ["warn", "good", "unknown", "unknown", "warn", "bad"]
    assert nodes["Processors"].value == "1 of 2 up"
    assert nodes["Processors"].details == (
        "processor-2 does not answer", "no answer for 3 s", "1,234 waiting", "2 restarts",
    )  # fmt: skip
    assert nodes["Recorder"].value == "gone"
    assert nodes["Cameras"].details == ("60 frames/s",)
    assert [chain([], levels, 0.0)[0].level for levels in ([], ["bad"], ["good", "warn"])] == ["unknown", "bad", "warn"]
