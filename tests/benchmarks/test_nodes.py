"""The whole system on three Kafka nodes, as `up` runs them: one is killed under load."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.nodes import nodes
from infra.layout import Layout


@pytest.mark.brokers
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_node_that_is_killed_under_load_loses_no_frame(tmp_path: Path) -> None:
    found = nodes(tmp_path, 14, cameras=4, faults=("kill",), pause_s=3, options=("--no-prometheus",))["kill"]
    assert [event["node"] for event in found["faults"]] == ["kafka-1"]
    assert found["restarts"] == {"kafka-1": 1}
    assert found["frames_recorded"] == found["frames_published"] > 0
    assert found["frames_lost"] == found["frames_shed"] == found["frames_dead_lettered"] == 0
    assert (found["audit"]["status"], found["audit"]["frames_recorded"]) == (0, found["frames_recorded"])
    assert found["longest_gap_s"] <= 10
    assert Layout(tmp_path / "kill").secure
