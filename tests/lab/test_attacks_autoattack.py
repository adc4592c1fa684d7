"""AutoAttack in the lab: it breaks an undefended network and leaves the global generator alone."""

from __future__ import annotations

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack
from torch import Tensor

from lab.attacks import behind, shown
from lab.attacks.auto_attack import Version, auto_attack
from lab.attacks.norms import l2
from schemas.errors import BundleError, ConfigError
from tests.lab.linear_classifier import CLASSES, FRAMES, bare, noisy, nonlinear
from tests.lab.rng import rng

LABELS = nonlinear(FRAMES).argmax(1)
small_net = behind(lambda frames, generator: frames, nonlinear)


@pytest.mark.parametrize("version", ["standard", "rand"])
def test_auto_attack_breaks_an_undefended_network_on_all_frames(version: Version) -> None:
    before = torch.get_rng_state()
    attacked = auto_attack(
        small_net, FRAMES, LABELS, eps=0.1, generator=rng(), version=version, steps=20, samples=2, queries=50
    )
    assert (nonlinear(attacked).argmax(1) != LABELS).all()
    assert (attacked - FRAMES).abs().max() <= 0.1 + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert torch.equal(torch.get_rng_state(), before)


def test_auto_attack_stays_in_an_l2_ball() -> None:
    attacked = auto_attack(
        small_net, FRAMES, LABELS, eps=1.0, generator=rng(), norm="l2", steps=10, queries=20
    )  # fmt: skip
    assert (nonlinear(attacked).argmax(1) != LABELS).all()
    assert l2(attacked - FRAMES).max() <= 1 + 1e-5


def test_auto_attack_follows_from_its_seed() -> None:
    def attacked(seed: int) -> Tensor:
        torch.manual_seed(torch.seed())
        return auto_attack(
            noisy, FRAMES, LABELS, eps=0.1, generator=rng(seed), version="rand", steps=3, samples=2, draws=2
        )

    assert torch.equal(attacked(1), attacked(1))
    assert not torch.equal(attacked(1), attacked(2))


def test_every_frame_is_attacked_in_expectation_and_not_until_one_draw_errs() -> None:
    """Check that frames are attacked even if a noisy draw misclassifies them, which happens to most frames."""

    def noisier(frames: Tensor, generator: torch.Generator) -> Tensor:
        return nonlinear(frames + 0.3 * torch.randn(frames.shape, generator=generator))

    attacked = auto_attack(
        noisier, FRAMES, LABELS, eps=0.1, generator=rng(), version="rand", steps=15, samples=10, draws=20
    )
    kept, clean = (
        shown(noisier, frames, LABELS, times=60, generator=rng(1)).float().mean() for frames in (attacked, FRAMES)
    )
    assert clean > 0.4
    assert kept < 0.25


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("version", ["standard", "rand"])
def test_networks_with_few_classes_are_attacked(classes: int, version: Version) -> None:
    def few(frames: Tensor, generator: torch.Generator) -> Tensor:
        return nonlinear(frames)[:, :classes]

    labels = few(FRAMES, rng()).argmax(1)
    attacked = auto_attack(
        few, FRAMES, labels, eps=0.2, generator=rng(), version=version, steps=8, samples=1, queries=20, draws=1
    )
    assert (few(attacked, rng()).argmax(1) != labels).all()


def test_the_whole_ensemble_runs_on_four_classes() -> None:
    """Check fewer targets than those of the networks with ten classes that the package assumes."""

    def four(frames: Tensor, generator: torch.Generator) -> Tensor:
        return nonlinear(frames)[:, :4]

    labels = four(FRAMES, rng()).argmax(1)
    attacked = auto_attack(four, FRAMES[:4], labels[:4], eps=0.001, generator=rng(), steps=4, queries=4)
    assert (four(attacked, rng()).argmax(1) == labels[:4]).any()
    assert (attacked - FRAMES[:4]).abs().max() <= 0.001 + 1e-6


@pytest.mark.parametrize("strong", ["highest loss", "last error"])
def test_a_run_keeps_the_candidate_that_fewer_draws_withstand(strong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = (FRAMES + 0.1 * torch.ones_like(FRAMES)).clamp(0, 1)
    weak = FRAMES * 0.999
    found = (good, weak) if strong == "highest loss" else (weak, good)

    def run(attack: APGDAttack, frames: Tensor, labels: Tensor) -> tuple[Tensor, None, None, Tensor]:
        return found[0], None, None, found[1]

    def brighter_errs(frames: Tensor, generator: torch.Generator) -> Tensor:
        brighter = (frames - FRAMES).mean((1, 2, 3)) + 0.02 * torch.randn(len(frames), generator=generator)
        return torch.stack((0.03 - brighter, brighter, 0 * brighter), 1)

    monkeypatch.setattr(APGDAttack, "attack_single_run", run)
    attacked = auto_attack(brighter_errs, FRAMES, LABELS * 0, eps=0.1, generator=rng(), version="rand", draws=20)
    assert torch.equal(attacked, good)


def test_invalid_versions_classes_and_steps_are_rejected_in_one_line() -> None:
    with pytest.raises(ConfigError, match="expected the version rand for a defence that draws"):
        auto_attack(noisy, FRAMES, LABELS, eps=0.1, generator=rng())
    with pytest.raises(ConfigError, match="standard or rand, got 'plus'"):
        auto_attack(bare, FRAMES, LABELS, eps=0.1, generator=rng(), version="plus")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ConfigError, match=f"classes from 0 to {CLASSES - 1}"):
        auto_attack(bare, FRAMES, LABELS + CLASSES, eps=0.1, generator=rng())
    with pytest.raises(ConfigError, match="at least one step"):
        auto_attack(bare, FRAMES, LABELS, eps=0.1, generator=rng(), steps=0)
    with pytest.raises(BundleError, match="gives gradients"):
        auto_attack(lambda frames, _: nonlinear(frames.detach()), FRAMES, LABELS, eps=0.1, generator=rng())
    assert auto_attack(bare, FRAMES[:0], LABELS[:0], eps=0.1, generator=rng()).shape == (0, *FRAMES.shape[1:])
