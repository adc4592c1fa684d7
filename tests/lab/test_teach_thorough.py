"""Training of the blocks below the head: they replace the head alone only if they are better on unseen labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lab.teach import thorough
from lab.teach.thorough import train_upper
from lab.teach.views import PLAIN
from processors.networks.efficientnet_lite import CHANNELS
from processors.networks.taught import Taught

PICTURES, STEPS = 40, 100


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Taught:
    """Return an untrained head above one frozen block and one block that can be trained."""
    monkeypatch.setattr(thorough, "MOST_STEPS", STEPS)
    torch.manual_seed(1)
    network = Taught(2, 2, 1).eval()
    torch.nn.init.zeros_(network.classifier.weight)
    torch.nn.init.zeros_(network.classifier.bias)
    return network


def easy_task() -> tuple[Tensor, Tensor, Tensor]:
    """Return maps (views, n, channels, 8, 8), labels (n,) and folds (n,): classes differ in half of the channels."""
    labels, folds = torch.arange(PICTURES) % 2, torch.arange(PICTURES) // 2 % 5
    maps = 0.1 * torch.randn(PLAIN + 1, PICTURES, CHANNELS[0], 8, 8, generator=torch.Generator().manual_seed(0))
    maps[:, labels == 1, ::2] += 3.0
    return maps, labels, folds


def test_trained_blocks_that_are_better_on_unseen_labels_replace_the_head(head: Taught) -> None:
    maps, labels, folds = easy_task()
    steps: list[int] = []
    held = torch.zeros(PLAIN * PICTURES, 2, dtype=torch.float64)
    found = train_upper(head, head, maps, labels, folds, held, 600.0, 0, steps.append)
    assert found.better
    assert sum(steps) == 2 * STEPS
    tested = labels[folds == folds.max()].repeat(PLAIN)
    assert (found.scores.argmax(1) == tested).all()
    with torch.inference_mode():
        assert (found.network.upper(maps[0], 1).argmax(1) == labels).all()


def test_a_head_that_is_as_good_is_kept(head: Taught) -> None:
    maps, labels, folds = easy_task()
    steps: list[int] = []
    confident_scores = 50.0 * torch.nn.functional.one_hot(labels, 2).double().repeat(PLAIN, 1)
    found = train_upper(head, head, maps, labels, folds, confident_scores, 600.0, 0, steps.append)
    assert not found.better
    assert sum(steps) == 2 * STEPS, "the second training is left out"
    assert found.network is head
    assert found.scores is confident_scores


def test_a_short_budget_ends_the_training_after_the_timed_steps(head: Taught) -> None:
    maps, labels, folds = easy_task()
    steps: list[int] = []
    held = torch.zeros(PLAIN * PICTURES, 2, dtype=torch.float64)
    train_upper(head, head, maps, labels, folds, held, 1e-9, 0, steps.append)
    assert sum(steps) == 2 * STEPS
    assert steps.count(1) in (3, 6)  # six if three steps were better, because a second training follows
