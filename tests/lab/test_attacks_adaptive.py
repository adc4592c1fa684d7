"""Gradients of EOT and BPDA against finite differences at the current iterate of the attack."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lab.attacks import (
    Defended,
    Norm,
    behind,
    bpda,
    eot_pgd,
    identity,
    jpeg_stand_in,
    learn_surrogate,
    shield_stand_in,
    transfer,
)
from lab.attacks.eot import loss_gradient
from lab.attacks.norms import l2
from lab.baselines import Jpeg, Shield
from schemas.errors import BundleError, ConfigError
from tests.lab.linear_classifier import FRAMES, LABELS, TARGETS, bare, linear, nonlinear
from tests.lab.rng import rng

EPS = 0.1
FINE = FRAMES[:3].double()
FINE_LABELS = LABELS[:3]


def waved(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Return frames with a wave of random phase: a smooth, nonlinear and random defence."""
    phase = torch.rand((len(frames), 1, 1, 1), generator=generator, dtype=torch.float64).to(frames)
    return frames + 0.1 * torch.sin(12 * frames + 6 * phase)


def stepped(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Return frames in random steps: a random defence whose gradient is 0 almost everywhere."""
    phase = torch.rand((len(frames), 1, 1, 1), generator=generator, dtype=torch.float64).to(frames)
    return ((frames + phase / 8) * 8).floor() / 8


smooth_defence = behind(waved, nonlinear)


def finite_differences(defended: Defended, point: Tensor, labels: Tensor, samples: int, seed: int) -> Tensor:
    """Return the gradient of the summed loss at `point` (B, C, H, W), value by value, under the same draws."""

    def losses(frames: Tensor) -> Tensor:
        draws = rng(seed)
        every = [F.cross_entropy(defended(frames, draws), labels, reduction="none") for _ in range(samples)]
        return torch.stack(every).sum(0)

    step, gradient = 1e-6, torch.zeros_like(point)
    for place in range(point[0].numel()):
        nudge = torch.zeros_like(point[0]).flatten()
        nudge[place] = step
        nudge = nudge.view_as(point[0])
        difference = losses(point + nudge) - losses(point - nudge)
        gradient.view(len(point), -1)[:, place] = difference / (2 * step)
    return gradient


def test_the_gradient_of_eot_is_the_gradient_of_the_loss_over_its_draws() -> None:
    found = loss_gradient(smooth_defence, FINE, FINE_LABELS, 4, rng(7))
    torch.testing.assert_close(found, finite_differences(smooth_defence, FINE, FINE_LABELS, 4, 7), rtol=1e-5, atol=1e-7)


def test_bpda_has_the_values_of_the_defence_and_the_gradient_of_the_stand_in() -> None:
    mixed = bpda(stepped, waved)
    point = FINE.clone().requires_grad_()

    values = mixed(point, rng(7))
    assert torch.equal(values, stepped(FINE, rng(7)))

    weights = torch.rand(FINE.shape, generator=rng(8)).double()
    (found,) = torch.autograd.grad((values * weights).sum(), point)
    step = 1e-6
    expected = weights * (waved(FINE + step, rng(7)) - waved(FINE - step, rng(7))) / (2 * step)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_the_gradient_of_bpda_is_taken_at_the_defended_picture() -> None:
    """Check the chain rule through the identity: the network's own gradient at the defended picture."""
    found = loss_gradient(behind(bpda(stepped), nonlinear), FINE, FINE_LABELS, 1, rng(7))
    at_defended = finite_differences(behind(identity, nonlinear), stepped(FINE, rng(7)), FINE_LABELS, 1, 7)
    torch.testing.assert_close(found, at_defended, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mixed", [waved, bpda(stepped, waved)])
def test_every_step_follows_the_gradient_at_the_current_iterate(mixed: Defended) -> None:
    """Check that each iterate follows the sign of finite differences at the iterate before, and not at the frame."""
    visited: list[tuple[Tensor, int]] = []

    def recorded_defence(frames: Tensor, generator: torch.Generator) -> Tensor:
        visited.append((frames.detach().clone(), generator.initial_seed()))
        return behind(mixed, nonlinear)(frames, rng(len(visited)))

    last = eot_pgd(
        recorded_defence,
        FINE,
        FINE_LABELS,
        None,
        eps=EPS,
        steps=4,
        samples=1,
        step=0.5,
        generator=rng(),
        random_start=False,
    )

    points = [*(point for point, _ in visited), last]
    assert torch.equal(points[0], FINE)
    share_that_differs = 0.0
    # BPDA differentiates the smooth stand-in around the defence's own values.
    for number, (before, after) in enumerate(itertools.pairwise(points), start=1):
        here, at_frame = (_sign(mixed, point, number) for point in (before, FINE))
        expected = (FINE + (before + 0.5 * EPS * here - FINE).clamp(-EPS, EPS)).clamp(0, 1)
        torch.testing.assert_close(after, expected)
        share_that_differs = max(share_that_differs, (here != at_frame).double().mean().item())
    assert share_that_differs > 0.05


def _sign(mixed: Defended, point: Tensor, seed: int) -> Tensor:
    """Return the sign of finite differences of the loss under one draw.

    A stand-in is shifted to the values of the defence that it replaces.
    """
    exact, smooth = mixed(point, rng(seed)).detach(), waved(point, rng(seed)).detach()

    def shifted(frames: Tensor, generator: torch.Generator) -> Tensor:
        return nonlinear(waved(frames, generator) + (exact - smooth))

    return finite_differences(shifted, point, FINE_LABELS, 1, seed).sign()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targeted", [False, True])
def test_attacks_stay_in_their_ball_and_reach_its_surface(norm: Norm, targeted: bool) -> None:
    eps = EPS if norm == "linf" else 0.8
    chosen_targets = TARGETS if targeted else None
    attacked = eot_pgd(bare, FRAMES, LABELS, chosen_targets, eps=eps, steps=10, samples=1, generator=rng(), norm=norm)

    size = (attacked - FRAMES).abs().amax((1, 2, 3)) if norm == "linf" else l2(attacked - FRAMES)
    assert size.max() <= eps + 1e-6
    assert size.min() >= 0.95 * eps
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    answers = linear(attacked).argmax(1)
    assert ((answers == TARGETS) if targeted else (answers != LABELS)).all()


@pytest.mark.parametrize("targets", [None, TARGETS])
def test_the_margin_of_a_saturated_network_has_a_gradient_and_its_cross_entropy_has_none(
    targets: Tensor | None,
) -> None:
    def saturated(frames: Tensor, generator: torch.Generator) -> Tensor:
        return 1e4 * linear(frames)

    labels = linear(FRAMES).argmax(1)
    aims = None if targets is None else (labels + 1) % 3

    def answers(margin: bool) -> Tensor:
        attacked = eot_pgd(
            saturated, FRAMES, labels, aims, eps=EPS, steps=10, samples=1, generator=rng(), random_start=False,
            margin=margin,
        )  # fmt: skip
        return linear(attacked).argmax(1)

    ascended = answers(margin=True)
    assert ((ascended != labels) if aims is None else (ascended == aims)).all()
    if aims is None:
        assert (answers(margin=False) == labels).any()


def test_the_random_start_in_the_l2_ball_is_optional() -> None:
    def flat(frames: Tensor, generator: torch.Generator) -> Tensor:
        return 0 * linear(frames)

    def attacked(random_start: bool) -> Tensor:
        return eot_pgd(
            flat, FRAMES, LABELS, None, eps=0.5, steps=1, samples=1, generator=rng(), norm="l2",
            random_start=random_start,
        )  # fmt: skip

    assert torch.equal(attacked(False), FRAMES)
    assert 0.4 < l2(attacked(True) - FRAMES).max() <= 0.5


def test_bpda_breaks_a_defence_without_a_gradient() -> None:
    without_bpda = eot_pgd(
        behind(stepped, linear), FRAMES, LABELS, None, eps=0.05, steps=10, samples=2, generator=rng(),
        random_start=False,
    )  # fmt: skip
    assert torch.equal(without_bpda, FRAMES)

    defended = behind(bpda(stepped), linear)
    with_bpda = eot_pgd(defended, FRAMES, LABELS, None, eps=EPS, steps=10, samples=2, generator=rng())
    assert (defended(with_bpda, rng(9)).argmax(1) != LABELS).all()


def negative(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Return negatives, the worst case for the identity: every gradient has the wrong sign."""
    return 1 - stepped(frames, generator)


def test_a_learned_surrogate_breaks_a_defence_that_the_identity_does_not() -> None:
    labels = linear(negative(FRAMES, rng(3))).argmax(1)
    pictures = torch.rand(60, *FRAMES.shape[1:], generator=rng(6))
    surrogate = learn_surrogate(negative, pictures, seed=0, steps=30)

    def survivors(backward: Defended) -> float:
        defended = behind(bpda(negative, backward), linear)
        attacked = eot_pgd(defended, FRAMES, labels, None, eps=EPS, steps=10, samples=2, generator=rng())
        return (defended(attacked, rng(9)).argmax(1) == labels).float().mean().item()

    assert survivors(surrogate) == 0
    assert survivors(identity) > 0.8


def test_a_surrogate_follows_from_its_seed_and_leaves_the_global_generator_alone() -> None:
    pictures = torch.rand(8, *FRAMES.shape[1:], generator=rng(6))
    before = torch.get_rng_state()
    first, again, other = (learn_surrogate(stepped, pictures, seed=seed, steps=2) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first(FRAMES, rng()), again(FRAMES, rng()))
    assert not torch.equal(first(FRAMES, rng()), other(FRAMES, rng()))


def smooth_pictures() -> Tensor:
    coarse = torch.rand(6, 3, 5, 5, generator=rng(1))
    return F.interpolate(coarse, (32, 32), mode="bicubic").clamp(0, 1)


def test_the_jpeg_stand_in_is_near_the_codec_and_has_its_own_gradient() -> None:
    pictures = smooth_pictures()
    for quality in (20, 75):
        apart = (jpeg_stand_in(quality)(pictures, rng()) - Jpeg(quality)(pictures, rng())).abs().mean()
        assert apart < 0.5 * (Jpeg(quality)(pictures, rng()) - pictures).abs().mean()
    grey = pictures[:, :1, :13, :21]
    assert jpeg_stand_in(50)(grey, rng()).shape == grey.shape

    stand_in = jpeg_stand_in(50)
    point = (0.2 + 0.6 * pictures[:1]).double().requires_grad_()  # far from the values at which it is clamped
    towards = torch.randn(point.shape, generator=rng(2)).double()
    (gradient,) = torch.autograd.grad(stand_in(point, rng()).sin().sum(), point)
    with torch.no_grad():
        step = 1e-7 * towards
        moved = (stand_in(point + step, rng()).sin().sum() - stand_in(point - step, rng()).sin().sum()) / 2e-7
    torch.testing.assert_close((gradient * towards).sum(), moved, rtol=1e-4, atol=1e-4)


def test_the_shield_stand_in_draws_the_qualities_that_shield_draws() -> None:
    pictures, shield = smooth_pictures(), Shield((5, 95))
    exact = shield(pictures, rng(3))
    same, other = (shield_stand_in(shield)(pictures, rng(seed)) for seed in (3, 4))
    assert (same - exact).abs().mean() < 0.5 * (other - exact).abs().mean()


def test_a_transfer_attack_fools_a_network_that_it_never_queried() -> None:
    other = torch.randn(5, 192, generator=rng(12))

    def related(frames: Tensor) -> Tensor:
        return linear(frames) + 0.5 * (frames - 0.5).flatten(1) @ other.T

    attacked = transfer([related], FRAMES, LABELS, None, eps=EPS, generator=rng())
    assert (linear(attacked).argmax(1) != LABELS).all()
    assert (attacked - FRAMES).abs().max() <= EPS + 1e-6
    both = transfer([related, nonlinear], FRAMES, LABELS, None, eps=EPS, generator=rng())
    assert not torch.equal(both, attacked)
    with pytest.raises(ConfigError, match="at least one network"):
        transfer([], FRAMES, LABELS, None, eps=EPS, generator=rng())


def test_momentum_accumulates_gradients_across_steps() -> None:
    slopes = iter([1.0, -0.1, -0.1])

    def turning(frames: Tensor, generator: torch.Generator) -> Tensor:
        score = next(slopes) * frames.sum((1, 2, 3))
        return torch.stack((torch.zeros_like(score), score), 1)

    zeros = torch.zeros(3, dtype=torch.int64)
    middle = torch.full((3, 1, 4, 4), 0.5)
    moved = eot_pgd(
        turning, middle, zeros, None, eps=EPS, steps=3, samples=1, step=0.25, generator=rng(), momentum=1.0,
        random_start=False,
    )  # fmt: skip
    # The accumulated directions are 1, 1 − 1 = 0 and −1: each gradient counts by its sign alone.
    torch.testing.assert_close(moved, middle)


def test_invalid_frames_labels_and_bounds_are_rejected_in_one_line() -> None:
    def attack(frames: Tensor = FRAMES, labels: Tensor = LABELS, eps: float = EPS, norm: Norm = "linf") -> Tensor:
        return eot_pgd(bare, frames, labels, None, eps=eps, steps=1, samples=1, generator=rng(), norm=norm)

    with pytest.raises(ConfigError, match=r"pictures in \[0, 1\], got .* to 255"):
        attack(frames=FRAMES * 255 / FRAMES.max())
    with pytest.raises(ConfigError, match=r"pictures in \[0, 1\], got nan"):
        attack(frames=FRAMES * torch.nan)
    with pytest.raises(ConfigError, match=r"float frames \(B, C, H, W\), got torch.uint8"):
        attack(frames=FRAMES.byte())
    with pytest.raises(ConfigError, match=r"labels \(12,\) int64, one a picture, got torch.int64 \(5,\)"):
        attack(labels=LABELS[:5])
    with pytest.raises(ConfigError, match="classes from 0 to 4, the network's, got 7"):
        attack(labels=LABELS * 0 + 7)
    for eps in (0.0, -1.0, 1.5, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="0 < ε ≤ 1"):
            attack(eps=eps)
    with pytest.raises(ConfigError, match="a positive number, got 0"):
        attack(eps=0.0, norm="l2")
    with pytest.raises(BundleError, match="expected a defence and a network that give gradients"):
        eot_pgd(
            lambda frames, _: linear(frames.detach()), FRAMES, LABELS, None, eps=EPS, steps=1, samples=1,
            generator=rng(),
        )  # fmt: skip
    with pytest.raises(ConfigError, match="expected a backward pass of the defence's shape"):
        bpda(stepped, lambda frames, generator: frames[:, :1])(FRAMES, rng())
