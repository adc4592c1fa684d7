"""JSMA against the paper's loops over all pairs of values."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lab.attacks import Logits, make_attack
from lab.attacks.jsma import Jsma, best_pairs
from schemas.errors import ConfigError
from tests.lab.linear_classifier import CLASSES, FRAMES, LABELS, TARGETS, linear, nonlinear
from tests.lab.rng import rng


def jacobian_of(logits: Logits, frame: Tensor) -> Tensor:
    """Return the Jacobian (classes, C · H · W) at a frame (C, H, W), class by class."""
    point = frame[None].clone().requires_grad_()
    rows = [torch.autograd.grad(logits(point)[0, number], point)[0].flatten() for number in range(CLASSES)]
    return torch.stack(rows)


def literal(frame: Tensor, label: int, target: int, share: float, darken: bool) -> tuple[Tensor, int]:
    """Return the adversarial frame of one frame (C, H, W) and the number of changed pairs.

    Source: Papernot et al. 2016, algorithm 2 with equations 8 and 9.
    """
    current, free = frame.clone(), set(range(frame.numel()))
    changed = 0
    while nonlinear(current[None]).argmax().item() != target and changed < int(frame.numel() * share) // 2:
        jacobian = jacobian_of(nonlinear, current)
        aimed, others = jacobian[target].tolist(), (jacobian.sum(0) - jacobian[target]).tolist()
        best, choice = 0.0, None
        for limit in (1.0, 0.0) if darken else (1.0,):
            values = current.flatten().tolist()
            domain = [p for p in sorted(free) if values[p] != limit]
            for i, p in enumerate(domain):
                for q in domain[i + 1 :]:
                    alpha, beta = aimed[p] + aimed[q], others[p] + others[q]
                    right = alpha > 0 > beta if limit else alpha < 0 < beta
                    if right and -alpha * beta > best * (1 + 1e-5):
                        best, choice = -alpha * beta, (p, q, limit)
        if choice is None:
            break
        p, q, limit = choice
        current.view(-1)[[p, q]] = limit
        free -= {p, q}
        changed += 1
    return current, changed


@pytest.mark.parametrize("darken", [False, True])
def test_jsma_changes_the_same_pairs_as_the_papers_loops(darken: bool) -> None:
    frames, labels, targets = FRAMES[:4].clone(), LABELS[:4], TARGETS[:4]
    frames[:, :, :4, :4], frames[:, :, 4:, 4:] = 0, 1  # values at their limits

    attacked = Jsma(0.1, darken)(nonlinear, frames, labels, targets, rng())

    changes = 0
    for frame, label, target, found in zip(frames, labels, targets, attacked, strict=True):
        expected, changed = literal(frame, int(label), int(target), 0.1, darken)
        torch.testing.assert_close(found, expected)
        changes += changed
    assert changes > 8


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 12), st.integers(0, 10_000), st.integers(1, 4))
def test_the_best_pair_is_the_best_of_all_pairs(count: int, seed: int, levels: int) -> None:
    """Check few levels, for which values are often equal."""
    gain, harm = torch.randint(-levels, levels + 1, (2, 5, count), generator=rng(seed)).float()
    allowed = torch.rand(5, count, generator=rng(seed + 1)) < 0.8

    scores, pairs = best_pairs(gain, harm, allowed)

    for row in range(5):
        products = {
            (p, q): float((gain[row, p] + gain[row, q]) * (harm[row, p] + harm[row, q]))
            for p in range(count)
            for q in range(p + 1, count)
            if allowed[row, p] and allowed[row, q]
            if gain[row, p] + gain[row, q] > 0 and harm[row, p] + harm[row, q] > 0
        }
        assert scores[row] == max(products.values(), default=0)
        if products:
            assert products[tuple(pairs[row].tolist())] == scores[row]


def test_jsma_succeeds_with_few_values_and_sets_them_to_their_limits() -> None:
    attacked = make_attack("jsma")(linear, FRAMES, LABELS, TARGETS, rng())
    assert (linear(attacked).argmax(1) == TARGETS).all()
    changed = (attacked != FRAMES).flatten(1)
    assert changed.sum(1).max() <= 0.145 * changed.shape[1]
    assert set(attacked[attacked != FRAMES].tolist()) == {0.0, 1.0}


def test_jsma_stops_at_its_share_of_values_and_if_no_pair_helps() -> None:
    attacked = make_attack("jsma", 0.02)(linear, FRAMES, LABELS, TARGETS, rng())
    assert ((attacked != FRAMES).flatten(1).sum(1) <= 3).all()

    def common(frames: Tensor) -> Tensor:
        return torch.stack([frames.sum((1, 2, 3)) + number for number in range(5)], 1)  # every class gains the same

    assert torch.equal(make_attack("jsma")(common, FRAMES, LABELS * 0 + 4, LABELS * 0, rng()), FRAMES)


def test_jsma_without_targets_aims_at_the_runner_up_class() -> None:
    attacked = make_attack("jsma")(linear, FRAMES, LABELS, None, rng())
    runner_up = linear(FRAMES).scatter(1, LABELS[:, None], -torch.inf).argmax(1)
    aimed = make_attack("jsma")(linear, FRAMES, LABELS, runner_up, rng())
    assert (linear(attacked).argmax(1) != LABELS).all()
    torch.testing.assert_close(attacked, aimed)


def test_shares_outside_their_range_are_rejected() -> None:
    for share in (0.0, -0.1, 1.5):
        with pytest.raises(ConfigError):
            make_attack("jsma", share)
