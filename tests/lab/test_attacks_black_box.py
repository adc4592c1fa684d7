"""Attacks without gradients: they succeed by queries alone, and keep their bounds and their query budget."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lab.attacks import attack_verdicts, resubmitted, shown, square, to_8_bits, verdicts
from lab.attacks.hop_skip_jump import hop_skip_jump
from lab.attacks.norms import l2
from lab.attacks.squares import square_side, stripes
from schemas.errors import ConfigError
from tests.lab.linear_classifier import COUNT, FRAMES, LABELS, TARGETS, WEIGHTS, bare, linear, noisy, slightly_noisy
from tests.lab.rng import rng

EPS = 0.1


class Counted:
    """A defence that counts the pictures of its queries and has no gradients."""

    def __init__(self, random: bool = False) -> None:
        self.random = random
        self.pictures = 0

    def __call__(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        assert frames.min() >= 0
        assert frames.max() <= 1
        self.pictures += len(frames)
        return (noisy if self.random else bare)(frames.detach(), generator)


@pytest.mark.parametrize("targeted", [False, True])
def test_square_succeeds_by_queries_alone(targeted: bool) -> None:
    counted = Counted()
    chosen_targets = TARGETS if targeted else None
    attacked = square(counted, FRAMES, LABELS, chosen_targets, eps=2 * EPS, queries=300, generator=rng())
    answers = linear(attacked).argmax(1)
    assert ((answers == TARGETS) if targeted else (answers != LABELS)).float().mean() >= 0.9
    assert (attacked - FRAMES).abs().max() <= 2 * EPS + 1e-6
    assert counted.pictures < 300 * COUNT


def test_square_does_not_keep_a_frame_for_one_lucky_draw() -> None:
    """Check that noisy classifications fail more often than after a search that keeps the best margin ever seen."""
    counted = Counted(random=True)
    attacked = square(counted, FRAMES, LABELS, None, eps=EPS, queries=400, generator=rng(), samples=2)
    assert counted.pictures <= (400 + 2) * COUNT
    kept = shown(noisy, attacked, LABELS, times=50, generator=rng(1)).float().mean()

    lucky = _with_the_best_ever_seen(400)
    assert kept < shown(noisy, lucky, LABELS, times=50, generator=rng(1)).float().mean() - 0.1


def _with_the_best_ever_seen(queries: int) -> Tensor:
    """Return the frames of a search that keeps the best margin ever seen, like the libraries."""
    from lab.attacks.contract import margins
    from lab.attacks.squares import random_squares

    draws, best = rng(), torch.full((COUNT,), -torch.inf)

    def better(candidates: Tensor, _: Tensor, rows: Tensor) -> Tensor:
        margin = margins(noisy(candidates, draws), LABELS[rows], None)
        won = margin > best[rows]
        best[rows[won]] = margin[won]
        return won

    start = stripes(FRAMES, EPS, draws)
    return random_squares(
        FRAMES, start, better, lambda: (best <= 0).nonzero()[:, 0], eps=EPS, steps=queries, generator=draws
    )


def test_squares_shrink_as_in_the_paper() -> None:
    done = (0, 11, 51, 201, 501, 1001, 8001)
    assert [square_side(queries / 10_000, 32, 32) for queries in done] == [29, 20, 14, 10, 7, 5, 1]
    assert square_side(0.0, 4, 1000) == 4


@pytest.mark.parametrize("targeted", [False, True])
def test_an_attack_succeeds_on_published_verdicts(targeted: bool) -> None:
    queries = 0

    def published(frames: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        nonlocal queries
        queries += len(frames)
        assert torch.equal(frames, to_8_bits(frames))  # a camera sends 8 bits
        return verdicts(slightly_noisy)(frames, generator)

    chosen_targets = TARGETS if targeted else None
    attacked = attack_verdicts(published, FRAMES, LABELS, chosen_targets, eps=2 * EPS, queries=1500, generator=rng())

    assert queries <= 1500 * COUNT
    assert torch.equal(attacked, to_8_bits(attacked))
    assert (attacked - FRAMES).abs().max() <= 2 * EPS + 0.5 / 255 + 1e-6
    answers = linear(attacked).argmax(1)
    assert ((answers == TARGETS) if targeted else (answers != LABELS)).float().mean() >= (0.6 if targeted else 0.9)


@pytest.mark.parametrize("targeted", [False, True])
def test_hop_skip_jump_comes_near_the_decision_boundary_by_labels_alone(targeted: bool) -> None:
    before = torch.get_rng_state()
    chosen_targets = TARGETS if targeted else None
    starts = torch.rand(60, *FRAMES.shape[1:], generator=rng(4))
    attacked = hop_skip_jump(
        Counted(), FRAMES, LABELS, chosen_targets, norm="l2", steps=6, evaluations=60, generator=rng(), starts=starts
    )
    assert torch.equal(torch.get_rng_state(), before)
    answers = linear(attacked).argmax(1)
    assert ((answers == TARGETS) if targeted else (answers != LABELS)).all()
    if not targeted:
        logits = linear(FRAMES)
        gaps = logits.gather(1, LABELS[:, None]) - logits
        apart = torch.cdist(WEIGHTS, WEIGHTS)[LABELS]
        nearest = (gaps / apart.clamp_min(1e-9)).scatter(1, LABELS[:, None], torch.inf).amin(1)
        assert (l2(attacked - FRAMES) / nearest).median() < 2


def test_hop_skip_jump_bounds_its_frames_and_leaves_frames_without_a_start() -> None:
    last_class = torch.full((COUNT,), 4)
    chosen_targets = torch.where(LABELS == 4, 0, last_class)
    only_own = FRAMES[(LABELS != 4)][:1]
    attacked = hop_skip_jump(
        bare, FRAMES, LABELS, chosen_targets, generator=rng(), steps=1, evaluations=5, starts=only_own
    )
    untouched = (attacked == FRAMES).flatten(1).all(1)
    assert untouched[linear(FRAMES).argmax(1) != 4].all()

    bounded, again = (
        hop_skip_jump(bare, FRAMES, LABELS, None, eps=0.01, generator=rng(), steps=2, evaluations=20) for _ in range(2)
    )
    assert 0 < (bounded - FRAMES).abs().max() <= 0.01 + 1e-6
    assert torch.equal(bounded, again)


def test_hop_skip_jump_attacks_the_majority_of_a_random_defence() -> None:
    starts = torch.rand(60, *FRAMES.shape[1:], generator=rng(4))
    attacked = hop_skip_jump(
        slightly_noisy,
        FRAMES,
        LABELS,
        None,
        norm="l2",
        steps=3,
        evaluations=40,
        samples=9,
        generator=rng(),
        starts=starts,
    )
    moved = (attacked != FRAMES).flatten(1).any(1)
    assert moved.sum() >= 8
    before, after = (
        shown(slightly_noisy, frames[moved], LABELS[moved], times=40, generator=rng(1)).float().mean()
        for frames in (FRAMES, attacked)
    )
    assert after < before - 0.2


def test_a_resubmitted_picture_survives_only_if_all_draws_are_right() -> None:
    once = shown(noisy, FRAMES, LABELS, times=8, generator=rng(2))
    survived = resubmitted(noisy, FRAMES, LABELS, times=8, generator=rng(2))
    assert once.shape == (8, COUNT)
    assert torch.equal(survived, once.all(0))
    assert survived.sum() < once.float().mean() * COUNT
    assert resubmitted(bare, FRAMES, LABELS, times=3, generator=rng()).all()


def test_invalid_requests_are_rejected_in_one_line() -> None:
    with pytest.raises(ConfigError, match="at least once, got 0 times"):
        resubmitted(bare, FRAMES, LABELS, times=0, generator=rng())
    with pytest.raises(ConfigError, match="classes from 0 to 4"):
        resubmitted(bare, FRAMES, LABELS + 9, times=1, generator=rng())
    with pytest.raises(ConfigError, match="at least one query"):
        square(bare, FRAMES, LABELS, None, eps=EPS, queries=0, generator=rng())
    with pytest.raises(ConfigError, match="0 < ε ≤ 1, got 2"):
        square(bare, FRAMES, LABELS, None, eps=2, queries=9, generator=rng())
    with pytest.raises(ConfigError, match="classes from 0 to 4"):
        square(bare, FRAMES, LABELS, TARGETS + 9, eps=EPS, queries=9, generator=rng())
    with pytest.raises(ConfigError, match="at least one query"):
        attack_verdicts(verdicts(bare), FRAMES, LABELS, None, eps=EPS, queries=0, generator=rng())
    with pytest.raises(ConfigError, match="at least one step"):
        hop_skip_jump(bare, FRAMES, LABELS, None, generator=rng(), steps=0)
    with pytest.raises(ConfigError, match=r"pictures in \[0, 1\]"):
        hop_skip_jump(bare, FRAMES - 1, LABELS, None, generator=rng())
