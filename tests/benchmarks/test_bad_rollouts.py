"""The bad candidates of the rollout's drill, and the count of their ends."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.models.bad_candidates import KINDS, OF_EACH, bad_candidates
from benchmarks.models.rollout import counted, outcome
from processors.bundle import load_bundle, shipped_bundle
from schemas.pointillist_pb2 import FAILED, PROMOTED, Assessment


def test_a_slow_candidate_is_a_multiple_of_the_live_network(tmp_path: Path) -> None:
    left_out = [f"{kind}-{number}" for kind in KINDS for number in range(OF_EACH)]
    left_out.remove("slow-0")
    ((kind, place),) = bad_candidates(tmp_path, left_out)
    assert kind == "slow"
    slow = load_bundle(place, torch.device("cpu"), vouched=True)
    live = load_bundle(shipped_bundle("scene"), torch.device("cpu"))
    assert slow.settings.factory_arguments == live.settings.factory_arguments
    frames = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(slow.logits(frames), live.logits(frames), atol=1e-4)


def test_a_candidate_without_a_decision_of_the_gate_does_not_count_as_rejected() -> None:
    ends = [outcome(each) for each in (None, Assessment(), Assessment(outcome=FAILED), Assessment(outcome=PROMOTED))]
    assert ends == ["undecided, dismissed", "undecided, dismissed", "rolled back", "promoted"]
    assert counted([{"outcome": each} for each in ends]) == {"promoted": 1, "undecided": 2}
