"""AutoAttack as the lab runs it: it breaks what is not defended and leaves its caller's world as it was."""

from __future__ import annotations

import sys
from types import FrameType

import pytest
import torch
from torch import Tensor

from lab.attacks import behind, shown
from lab.attacks.auto_attack import Version, auto_attack
from lab.attacks.norms import l2
from schemas.errors import BundleError, ConfigError
from tests.lab.linear_judge import CLASSES, FRAMES, bare, bent, chance, noisy

LABELS = bent(FRAMES).argmax(1)
small_net = behind(lambda frames, generator: frames, bent)


@pytest.mark.parametrize("version", ["standard", "rand"])
def test_it_breaks_an_undefended_network_totally(version: Version) -> None:
    before = torch.get_rng_state()
    attacked = auto_attack(
        small_net, FRAMES, LABELS, eps=0.1, generator=chance(), version=version, steps=20, samples=2, queries=50
    )
    assert (bent(attacked).argmax(1) != LABELS).all()
    assert (attacked - FRAMES).abs().max() <= 0.1 + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert torch.equal(torch.get_rng_state(), before)


def test_it_keeps_an_l2_ball() -> None:
    attacked = auto_attack(
        small_net, FRAMES, LABELS, eps=1.0, generator=chance(), norm="l2", steps=10, queries=20
    )  # fmt: skip
    assert (bent(attacked).argmax(1) != LABELS).all()
    assert l2(attacked - FRAMES).max() <= 1 + 1e-5


def test_the_same_seed_gives_the_same_frames_and_another_one_others() -> None:
    def attacked(seed: int) -> Tensor:
        torch.manual_seed(torch.seed())
        return auto_attack(
            noisy, FRAMES, LABELS, eps=0.1, generator=chance(seed), version="rand", steps=3, samples=2, draws=2
        )

    assert torch.equal(attacked(1), attacked(1))
    assert not torch.equal(attacked(1), attacked(2))


def test_every_frame_is_attacked_in_expectation_and_not_until_one_lucky_draw() -> None:
    """Behind strong noise most frames err at some draw by themselves: those are not done with."""

    def noisier(frames: Tensor, generator: torch.Generator) -> Tensor:
        return bent(frames + 0.3 * torch.randn(frames.shape, generator=generator))

    attacked = auto_attack(
        noisier, FRAMES, LABELS, eps=0.1, generator=chance(), version="rand", steps=15, samples=10, draws=20
    )
    kept, clean = (
        shown(noisier, frames, LABELS, times=60, generator=chance(1)).float().mean() for frames in (attacked, FRAMES)
    )
    assert clean > 0.4
    assert kept < 0.25


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("version", ["standard", "rand"])
def test_networks_of_few_classes_are_attacked_by_what_fits_them(classes: int, version: Version) -> None:
    def few(frames: Tensor, generator: torch.Generator) -> Tensor:
        return bent(frames)[:, :classes]

    labels = few(FRAMES, chance()).argmax(1)
    attacked = auto_attack(
        few, FRAMES, labels, eps=0.2, generator=chance(), version=version, steps=8, samples=1, queries=20, draws=1
    )
    assert (few(attacked, chance()).argmax(1) != labels).all()


def test_a_debuggers_trace_function_is_left_in_place() -> None:
    def trace(frame: FrameType, event: str, argument: object) -> None:
        return None

    there = sys.gettrace()
    sys.settrace(trace)
    try:
        auto_attack(small_net, FRAMES[:2], LABELS[:2], eps=0.1, generator=chance(), steps=2, queries=2)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(there)


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="expected the version rand for a defence that draws"):
        auto_attack(noisy, FRAMES, LABELS, eps=0.1, generator=chance())
    with pytest.raises(ConfigError, match="standard or rand, got 'plus'"):
        auto_attack(bare, FRAMES, LABELS, eps=0.1, generator=chance(), version="plus")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ConfigError, match=f"classes from 0 to {CLASSES - 1}"):
        auto_attack(bare, FRAMES, LABELS + CLASSES, eps=0.1, generator=chance())
    with pytest.raises(ConfigError, match="at least one step"):
        auto_attack(bare, FRAMES, LABELS, eps=0.1, generator=chance(), steps=0)
    with pytest.raises(BundleError, match="gives gradients"):
        auto_attack(lambda frames, _: bent(frames.detach()), FRAMES, LABELS, eps=0.1, generator=chance())
    assert auto_attack(bare, FRAMES[:0], LABELS[:0], eps=0.1, generator=chance()).shape == (0, *FRAMES.shape[1:])
