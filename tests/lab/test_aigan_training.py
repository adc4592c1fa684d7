"""AI-GAN's training: it succeeds, resumes after a stop with the same result, and queries a black box."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lab.aigan import training, universal
from lab.aigan.generator import Generator, Shape
from lab.aigan.opponents import Distilled, Opponent, WhiteBox, answers_of
from lab.aigan.training import Recipe, success, train
from lab.chance import seeded
from lab.repair.checkpoints import Checkpoint
from schemas.errors import ConfigError

SHAPE = Shape(classes=3, channels=1, height=8, width=8)
RECIPE = Recipe(
    steps=60,
    cycle=60,
    eps=0.3,
    batch=32,
    rate=1e-2,
    average_decay=0.9,
    pretrain_steps=2,
    gate_steps=20,
    attacker_steps=2,
    narrow=4,
    wide=8,
    blocks=1,
)


def linear(seed: int = 0) -> nn.Module:
    with seeded(seed):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def pictures() -> tuple[Tensor, Tensor]:
    images = torch.randint(0, 256, (160, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return images, linear()(images.float() / 255).argmax(1)


def trained(
    opponent: Opponent, recipe: Recipe = RECIPE, file: Path | None = None, most: int | None = None
) -> Generator:
    """Return the generator after the whole recipe. If `most` is given, stop with KeyboardInterrupt after this step."""

    def stop(step: int, generator: Generator) -> None:
        if step == most:
            raise KeyboardInterrupt

    return train(*pictures(), SHAPE, opponent, recipe, Checkpoint(file, "same"), stop)


def white_box() -> WhiteBox:
    return WhiteBox(linear().requires_grad_(False))


def black_box(answers: Callable[[Tensor], Tensor] | None = None) -> Distilled:
    return Distilled(answers or answers_of(linear()), linear(1), rate=1e-2)


def test_a_trained_generator_reaches_its_target_classes() -> None:
    with seeded(0):
        before = Generator(SHAPE, RECIPE.narrow, RECIPE.wide, RECIPE.blocks).eval()
    assert success(before, linear(), *pictures(), 0.3) < 0.5
    assert success(trained(white_box()), linear(), *pictures(), 0.3) > 0.9


def test_dynamic_distillation_succeeds_by_queries_alone() -> None:
    opponent = black_box()
    generator = trained(opponent, replace(RECIPE, steps=80, cycle=80, warmup_steps=20))
    assert success(generator, linear(), *pictures(), 0.3) > 0.8
    # Templates are made for three targets from two source classes each.
    by_templates = 3 * 2 * sum(10 * (each // 2 + each) for each in (universal.SHARED_BATCH, universal.OWN_BATCH))
    assert opponent.asked == 100 * (RECIPE.batch // 2 + RECIPE.batch) + by_templates


@pytest.fixture(autouse=True)
def few_steps_for_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(universal, "SHARED_STEPS", 10)
    monkeypatch.setattr(universal, "OWN_STEPS", 10)


def test_a_black_box_is_queried_without_gradients() -> None:
    target = linear()
    queries = []

    def recorded_target(frames: Tensor) -> Tensor:
        queries.append((frames.requires_grad, torch.is_grad_enabled()))
        return target(frames)  # type: ignore[no-any-return]

    opponent = black_box(answers_of(recorded_target))
    attacked = torch.rand(4, 1, 8, 8).requires_grad_()
    opponent.learn(torch.rand(4, 1, 8, 8), attacked * 1, 1.0)
    assert queries == [(False, False)]
    assert attacked.grad is None
    # The generator's gradients come from the local network, whose weights get no gradients.
    (gradient,) = torch.autograd.grad(opponent.logits(attacked).sum(), attacked)
    assert gradient.abs().sum() > 0
    assert all(parameter.grad is None for parameter in target.parameters())
    assert queries == [(False, False)]


def test_the_local_network_learns_the_black_boxs_answers_on_generated_pictures() -> None:
    opponent, frames = black_box(), torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    target = linear()
    for _ in range(100):
        opponent.learn(frames, frames.flip(3), 1.0)
    with torch.no_grad():
        both = torch.cat((frames, frames.flip(3)))
        gap = (opponent.logits(both).log_softmax(1) - target(both).log_softmax(1)).abs().mean()
        before = (linear(1)(both).log_softmax(1) - target(both).log_softmax(1)).abs().mean()
    assert gap < before / 3


@pytest.mark.parametrize("make", [white_box, black_box])
def test_a_stopped_run_resumes_and_ends_in_the_same_weights(
    make: Callable[[], Opponent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY", 5)
    recipe = replace(RECIPE, steps=12, cycle=6)
    whole = trained(make(), recipe)
    file = tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        trained(make(), recipe, file, most=5)
    # The first run ends after six steps. The next one has more steps and continues from there.
    trained(make(), replace(recipe, steps=6), file)
    later = trained(make(), recipe, file)
    for (name, expected), (_, got) in zip(whole.state_dict().items(), later.state_dict().items(), strict=True):
        assert torch.equal(expected, got), name


def test_fewer_steps_than_the_checkpoint_has_are_rejected(tmp_path: Path) -> None:
    trained(white_box(), replace(RECIPE, steps=4), tmp_path / "state.pt")
    with pytest.raises(ConfigError, match=r"--steps: expected at least 4, those of the checkpoint .*, got 3"):
        trained(white_box(), replace(RECIPE, steps=3), tmp_path / "state.pt")


def test_more_steps_keep_the_learning_rates_and_each_cycle_ends_with_a_generator() -> None:
    short, long = (replace(RECIPE, steps=steps, cycle=10) for steps in (15, 30))
    assert short.described == long.described
    assert [short.rate_at(step) for step in range(15)] == [long.rate_at(step) for step in range(15)]
    assert [step for step in range(31) if long.ends_cycle(step)] == [10, 20, 30]
    assert [step for step in range(16) if short.ends_cycle(step)] == [10, 15]
    assert max(long.rate_at(step) for step in range(10)) > max(long.rate_at(step) for step in range(10, 20))
    assert long.rate_at(9) < 0.05
